"""The keys of an upstream's ``login``: where a token is obtained, with which credentials, and how it is put on
requests.

Credentials are named, never written: ``env:NAME`` and ``file:PATH`` are kept as references here, read at use by
``sidecar.upstream.login``, and shown as references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from sidecar.config.schema.addresses import judge_path, parse_origin
from sidecar.config.schema.fields import Block, Duration, Method, Pointer, clip, kind_of, refuse
from sidecar.config.schema.policy import WritableHeader
from sidecar.config.schema.secrets import split_reference
from sidecar.config.text.document import plain
from sidecar.config.text.problems import Code
from sidecar.core.secret_names import is_secret_name
from sidecar.core.settings.deployment import Login, Origin, Reference

__all__ = ["LoginBlock", "compile_login"]

_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}")
"""RFC 9110 section 11.1; empty: the token alone."""


def _read_template(value: object) -> object:
    template = plain(value)
    for key, text in _texts(template, ""):
        if text.startswith(("env:", "file:")):
            if split_reference(text) is None:
                raise refuse(
                    Code.BAD_VALUE,
                    f"`{clip(text)}` names no variable and no file",
                    "write `env:NAME` (letters, digits, `_`) or `file:PATH`",
                )
        elif is_secret_name(key):
            raise refuse(
                Code.BAD_VALUE,
                f"the value of `{clip(key)}` is a secret, which must not stand in this file",
                "name a variable or a file: `env:NAME` or `file:PATH`",
            )
    return template


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Every text of a template, with the key that it stands at."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _read_form(value: object) -> object:
    form = _read_template(value)
    if not isinstance(form, dict) or not form or not all(isinstance(item, str) for item in form.values()):
        raise refuse(
            Code.WRONG_TYPE,
            f"must be fields with a text each, not {kind_of(value)}",
            "as in {grant_type: client_credentials, client_id: env:ID, client_secret: env:SECRET}",
        )
    return form


def _read_url(value: object) -> str:
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"must be a path or a URL, not {kind_of(value)}")
    if value.startswith("/"):
        judge_path(value, "the path of a login")
    else:
        parse_origin(value)
    return value


def _read_scheme(value: object) -> str:
    if not isinstance(value, str) or not _SCHEME.fullmatch(value):
        raise refuse(Code.BAD_VALUE, "is no authentication scheme", 'one word such as Bearer; "" for the token alone')
    return value


_FORM_SCHEMA = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}
Template = Annotated[Any, BeforeValidator(_read_template), WithJsonSchema({"title": "any JSON"})]
Form = Annotated[Any, BeforeValidator(_read_form), WithJsonSchema({**_FORM_SCHEMA, "title": "fields"})]
LoginUrl = Annotated[
    str,
    BeforeValidator(_read_url),
    WithJsonSchema({"type": "string", "pattern": "^(/|https?://)", "title": "path or URL"}),
]
Scheme = Annotated[
    str, BeforeValidator(_read_scheme), PlainSerializer(str), WithJsonSchema({"type": "string", "title": "scheme"})
]


class LoginSendBlock(Block):
    """How the token is put on requests."""

    noun: ClassVar[str] = "the block `send`"

    header: WritableHeader = Field("Authorization", description="The request header that carries the token.")
    scheme: Scheme = Field("Bearer", description='The word before the token; `""`: none.')


class LoginBlock(Block):
    """Where a token is had, for rows that say `then: login`."""

    noun: ClassVar[str] = "the block `login`"

    url: LoginUrl = Field(description="A path on the origin (its base path is not prefixed), or a whole URL.")
    method: Method = Field("POST", description="The method of the login request.")
    json_: Template = Field(
        None, alias="json", description="Its JSON body. Secrets as `env:NAME` or `file:PATH`, read at each login."
    )
    form: Form = Field(
        None, description="Or its form fields, as OAuth 2.0 client credentials have them (RFC 6749 4.4)."
    )
    token: Pointer = Field("/access_token", description="Where the token stands in the answer.")
    expires_in: Pointer | None = Field(
        None, description="Where its life in seconds stands; it is renewed ahead of its end. Left out: on a 401 only."
    )
    send: LoginSendBlock = Field(LoginSendBlock(), description="How the token is put on requests.")
    apply: Literal["absent", "replace"] = Field(
        "absent", description="`absent`: only for requests on which the app sent no such header; `replace`: for all."
    )
    timeout: Duration = Field(10.0, description="For the whole login.")

    @model_validator(mode="after")
    def _one_body(self) -> LoginBlock:
        if self.sets("json_") == self.sets("form"):
            found = "this has both" if self.sets("form") else "this has neither"
            raise refuse(
                Code.WRONG_SHAPE,
                f"a login has a `json` or a `form` body; {found}",
                "as in form: {grant_type: client_credentials, client_id: env:ID, client_secret: env:SECRET}",
                ("json", "form"),
            )
        return self


def compile_login(block: LoginBlock | None, origin: Origin, folder: Path) -> Login | None:
    """``folder`` is that of ``sidecar.yaml``: files are named relative to it."""
    if block is None:
        return None
    place, target = _place(block.url, origin)
    is_form = block.sets("form")
    return Login(
        origin=place,
        target=target,
        method=block.method,
        body=_with_references(block.form if is_form else block.json_, folder),
        encoding="form" if is_form else "json",
        token=block.token,
        expires_in=block.expires_in,
        header=block.send.header,
        scheme=block.send.scheme,
        replace=block.apply == "replace",
        timeout_seconds=block.timeout,
    )


def _place(url: str, origin: Origin) -> tuple[Origin, str]:
    """The origin to ask, and the request target there."""
    if url.startswith("/"):
        return replace(origin, base_path=""), url
    other = parse_origin(url)
    # A private authority is trusted for the host that it was named for, not for others.
    same = (other.scheme, other.host, other.port) == (origin.scheme, origin.host, origin.port)
    return replace(origin if same else other, base_path=""), other.base_path or "/"


def _with_references(value: object, folder: Path) -> object:
    if isinstance(value, dict):
        return {key: _with_references(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item, folder) for item in value]
    reference = split_reference(value) if isinstance(value, str) else None
    if reference is None:
        return value
    kind, name = reference
    return Reference(kind, name if kind == "env" else str(folder / name))
