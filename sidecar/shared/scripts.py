"""The scripts that run inside the store, each as one atomic step. Every key that they write has a time to live.

A value is a hash whose field ``v`` marks it as ours; any other value under our name is left alone, and the script fails
with ``FOREIGN``. Fields that begin with ``@`` are moments: seconds from now on the way in and out, the store's own time
inside. The scripts decide only which of two values holds; rates are learnt in ``core.flow.rate_limit``.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["DIGESTS", "SCRIPTS"]

_OURS: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local function number(text)
  local value = tonumber(text or '')
  if value and value == value and value > -1e15 and value < 1e15 then return value end
end
local function text(value) return string.format('%.6f', value) end
local function stranger(key, kind)
  local found = redis.call('TYPE', key).ok
  if found == 'none' then return false end
  return found ~= kind or (kind == 'hash' and redis.call('HGET', key, 'v') ~= '1')
end
local function within(value, seconds) return math.min(value, now + seconds) end
-- The store's clock was set back: every moment goes with it, as seconds from now are what was meant.
local function mend(key)
  local set = number(redis.call('HGET', key, 'set'))
  if set and now < set - 1 then
    local flat = redis.call('HGETALL', key)
    for at = 1, #flat, 2 do
      local name, value = flat[at], number(flat[at + 1])
      if value and (string.sub(name, 1, 1) == '@' or name == 'next' or name == 'told') then
        redis.call('HSET', key, name, text(value + now - set))
      end
    end
    redis.call('HSET', key, 'set', text(now))
  end
end
local function put(key, first)
  for at = first, #ARGV, 2 do
    local name, value = ARGV[at], ARGV[at + 1]
    if string.sub(name, 1, 1) == '@' then value = text(now + tonumber(value)) end
    redis.call('HSET', key, name, value)
  end
  redis.call('HSET', key, 'v', '1')
end
local function told(key)
  local fields = {}
  local flat = redis.call('HGETALL', key)
  for at = 1, #flat, 2 do
    local name, value = flat[at], flat[at + 1]
    if string.sub(name, 1, 1) == '@' then value = text((number(value) or now) - now) end
    fields[name] = value
  end
  return cjson.encode(fields)
end
"""

_CLOSE: Final = """
-- KEYS: lane, index. ARGV: channel, sender, lane, generation that it was made from, seconds until the gate opens,
-- milliseconds to keep it, then the fields of a rate limit, or none.
if stranger(KEYS[1], 'hash') or stranger(KEYS[2], 'zset') then return redis.error_reply('FOREIGN value') end
mend(KEYS[1])
local expected, left = tonumber(ARGV[4]), tonumber(ARGV[5])
local function field(name) return number(redis.call('HGET', KEYS[1], name)) end
local stored, before = field('generation'), within(field('@until') or 0, 3600)
local opens = math.max(before, left > 0 and now + left or 0)
if opens == 0 then opens = now end
if expected == -1 and before > 0 and opens <= before + 0.05 and (stored or #ARGV == 6) then
  return told(KEYS[1])  -- it is known, and nobody needs to be told again
end
if #ARGV > 6 then
  local begun = field('@begun')
  if not stored or (expected > 0 and stored == expected) then
    local next = field('next')
    redis.call('DEL', KEYS[1])
    put(KEYS[1], 7)
    if next then redis.call('HSET', KEYS[1], 'next', text(next)) end
    if expected == 0 then redis.call('HSET', KEYS[1], '@begun', text(now)) end
  elseif expected == 0 and begun and now - begun < 0.5 then
    -- Several replicas met their first refusal at once: what each of them was given adds up.
    for at = 7, #ARGV, 2 do
      local name = ARGV[at]
      if name == 'rate' or name == 'recent' then
        redis.call('HSET', KEYS[1], name, text((field(name) or 0) + tonumber(ARGV[at + 1])))
      end
    end
    redis.call('HSET', KEYS[1], 'generation', string.format('%d', stored + 1))
  end
end
local next = math.max(within(field('next') or 0, 3660), opens)
redis.call('HSET', KEYS[1], 'v', '1', 'set', text(now), '@until', text(opens), 'next', text(next))
if field('generation') then
  redis.call('HSET', KEYS[1], '@since', text(math.max(within(field('@since') or 0, 3600), opens)))
end
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[6]) + math.max(0, opens - now) * 1000))
-- The index holds the lanes that were told last; one that falls out of it is forgotten.
redis.call('ZADD', KEYS[2], text(now), ARGV[3])
redis.call('PEXPIRE', KEYS[2], 7200000)
local many = redis.call('ZCARD', KEYS[2]) - 4096
if many > 0 then
  local last = math.min(many, 64) - 1
  for _, lane in ipairs(redis.call('ZRANGE', KEYS[2], 0, last)) do
    local key = string.sub(KEYS[1], 1, -#ARGV[3] - 1) .. lane
    if key ~= KEYS[1] and not stranger(key, 'hash') then redis.call('DEL', key) end
  end
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, last)
end
local fields = told(KEYS[1])
redis.call('PUBLISH', ARGV[1], cjson.encode({from = ARGV[2], kind = 'lane', lane = ARGV[3], fields = fields}))
return fields
"""

_ASK: Final = """
-- KEYS: lane. ARGV: channel, sender, lane, generation, moments wanted, a second, seconds to look ahead, successes,
-- seconds that they are remembered, milliseconds to keep it.
if stranger(KEYS[1], 'hash') then return redis.error_reply('FOREIGN value') end
mend(KEYS[1])
local function field(name) return number(redis.call('HGET', KEYS[1], name)) end
local stored = field('generation')
if not stored then return {'gone'} end
if stored ~= tonumber(ARGV[4]) then return {'other', told(KEYS[1])} end
local wanted, rate, ahead = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local successes, memory = tonumber(ARGV[8]), tonumber(ARGV[9])
local taken = (field('taken') or 0) + successes
local since = within(field('@since') or 0, 3600)
local begun = math.max(within(field('@recent') or now, 3600), since)
local recent = (field('recent') or 0) * math.exp(-math.max(0, now - begun) / memory) + successes / memory
local at = math.max(within(field('@until') or 0, 3600), since, now)
-- No moment before it can lie further ahead than so; what stands there may be anybody's.
at = math.max(at, math.min(field('next') or 0, at + ahead + 2 / rate))
local reply = {'ok', string.format('%d', taken), text(recent), '0'}
local last = now
while #reply - 4 < wanted and at <= now + ahead do
  reply[#reply + 1] = text(at - now)
  last = at
  at = at + 1 / rate
end
redis.call('HSET', KEYS[1], 'set', text(now), 'taken', string.format('%d', taken), 'recent', text(recent),
  '@recent', text(math.max(begun, now)), 'next', text(at))
local is_short = #reply - 4 < wanted
if is_short then reply[4] = text(math.max(0.002, at - now - ahead / 2)) end
if is_short or last > now + 0.002 then
  redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[10]) + math.max(0, at - now) * 1000))
  if math.abs(now - (field('told') or 0)) > 5 then
    redis.call('HSET', KEYS[1], 'told', text(now))
    redis.call('PUBLISH', ARGV[1], cjson.encode({from = ARGV[2], kind = 'needed', lane = ARGV[3]}))
  end
end
return reply
"""

_BREAKER: Final = """
-- KEYS: breaker. ARGV: channel, sender, milliseconds to keep it, then its fields.
if stranger(KEYS[1], 'hash') then return redis.error_reply('FOREIGN value') end
redis.call('DEL', KEYS[1])
put(KEYS[1], 4)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[1], cjson.encode({from = ARGV[2], kind = 'breaker', fields = told(KEYS[1])}))
return 'ok'
"""

_BUDGET: Final = """
-- KEYS: budget. ARGV: floor a second, ratio, capacity, tokens of a new one, requests, tokens paid, milliseconds to
-- keep it.
if stranger(KEYS[1], 'hash') then return redis.error_reply('FOREIGN value') end
local function field(name) return number(redis.call('HGET', KEYS[1], name)) end
local capacity, tokens = tonumber(ARGV[3]), field('tokens') or tonumber(ARGV[4])
local seconds = math.max(0, now - (field('at') or now))
tokens = math.min(capacity, tokens + seconds * tonumber(ARGV[1]) + tonumber(ARGV[5]) * tonumber(ARGV[2]))
tokens = math.max(-capacity, math.min(capacity, tokens - tonumber(ARGV[6])))  -- what is given back is less than 0
redis.call('HSET', KEYS[1], 'v', '1', 'tokens', text(tokens), 'at', text(now))
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return text(tokens)
"""

_READ: Final = """
-- KEYS: a lane or a breaker.
if stranger(KEYS[1], 'hash') then return redis.error_reply('FOREIGN value') end
mend(KEYS[1])
return told(KEYS[1])
"""

_LANES: Final = """
-- KEYS: index. ARGV: how many at the most.
if stranger(KEYS[1], 'zset') then return redis.error_reply('FOREIGN value') end
return redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
"""

_SALT: Final = """
-- KEYS: salt. ARGV: what it is if there is none, milliseconds to keep it.
if stranger(KEYS[1], 'string') then return redis.error_reply('FOREIGN value') end
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('GET', KEYS[1])
"""

SCRIPTS: Final = {
    name: _OURS + body
    for name, body in {
        "close": _CLOSE,
        "ask": _ASK,
        "breaker": _BREAKER,
        "budget": _BUDGET,
        "read": _READ,
        "lanes": _LANES,
        "salt": _SALT,
    }.items()
}
"""Name → script."""

DIGESTS: Final = {
    name: hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest() for name, text in SCRIPTS.items()
}
"""Name → the digest under which the store knows a script (``EVALSHA``)."""
