"""moto's server with one object in it; prints its port, ends with its standard input."""

from __future__ import annotations

import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
s3 = boto3.client(
    "s3",
    endpoint_url=f"http://{host}:{port}",
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
)
s3.create_bucket(Bucket="shelf")
s3.put_object(Bucket="shelf", Key="book", Body=b"fine")
print(port, flush=True)
sys.stdin.read()
server.stop()
