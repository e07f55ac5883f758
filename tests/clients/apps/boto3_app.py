"""An app on boto3: an object in S3, read. Its own retries are off (AWS_MAX_ATTEMPTS)."""

from __future__ import annotations

import sys

import boto3
from botocore.config import Config

s3 = boto3.client(
    "s3",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(s3={"addressing_style": "path"}),
)
print(200, s3.get_object(Bucket="shelf", Key="book")["Body"].read().decode())
