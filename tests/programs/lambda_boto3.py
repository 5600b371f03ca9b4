"""What boto3 makes of the gateway whose address is the argument."""

import base64
import io
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

client = boto3.client(
    "lambda", endpoint_url=sys.argv[1], config=Config(retries={"max_attempts": 0}, read_timeout=30)
)


def expect(is_, want):
    assert is_ == want, f"{is_!r} is not {want!r}"


def refused(code, status, **arguments):
    try:
        client.invoke(**arguments)
    except ClientError as error:
        expect(error.response["Error"]["Code"], code)
        expect(error.response["ResponseMetadata"]["HTTPStatusCode"], status)
        assert isinstance(error, getattr(client.exceptions, code, ClientError))
        return error.response
    raise AssertionError(f"{arguments} is not refused")


answer = client.invoke(FunctionName="probe", Payload=json.dumps({"a": "ü"}))
expect(answer["StatusCode"], 200)
expect(answer["ExecutedVersion"], "$LATEST")
assert "FunctionError" not in answer and "LogResult" not in answer
expect(
    json.load(answer["Payload"]),
    {"event": {"a": "ü"}, "id": answer["ResponseMetadata"]["RequestId"]},
)

arn = "arn:aws:lambda:us-east-1:000000000000:function:probe"
expect(client.invoke(FunctionName=arn, Qualifier="$LATEST", Payload=b"1")["StatusCode"], 200)
expect(client.invoke(FunctionName="probe", Qualifier="1", Payload=b"1")["ExecutedVersion"], "1")
expect(json.load(client.invoke(FunctionName="probe")["Payload"])["event"], {})

answer = client.invoke(
    FunctionName="probe", LogType="Tail", Payload=json.dumps({"op": "print", "text": "hello"})
)
log = base64.b64decode(answer["LogResult"]).decode()
assert "\nhello\nEND RequestId: " in log and log.startswith("START RequestId: "), log

answer = client.invoke(FunctionName="probe", Payload=json.dumps({"op": "raise"}))
expect(answer["FunctionError"], "Unhandled")
expect(json.load(answer["Payload"])["errorType"], "ValueError")
answer = client.invoke(FunctionName="hasty", Payload=json.dumps({"op": "sleep", "seconds": 20}))
expect(json.load(answer["Payload"])["errorType"], "Sandbox.Timedout")

expect(client.invoke(FunctionName="probe", InvocationType="Event", Payload=b"{}")["StatusCode"], 202)
expect(client.invoke(FunctionName="probe", InvocationType="DryRun")["StatusCode"], 204)
context = base64.b64encode(b'{"client": {}}').decode()
expect(client.invoke(FunctionName="probe", ClientContext=context, Payload=b"1")["StatusCode"], 200)

response = refused("ResourceNotFoundException", 404, FunctionName="none", Payload=b"{}")
expect(response["Type"], "User")
expect(response["Message"], "Function not found: arn:aws:lambda:us-east-1:000000000000:function:none")
refused("InvalidRequestContentException", 400, FunctionName="probe", Payload=b"{")
refused("RequestTooLargeException", 413, FunctionName="probe", Payload=b" " * (6291456 + 1))
refused("RequestTooLargeException", 413, FunctionName="probe", InvocationType="Event", Payload=b" " * (1048576 + 1))

# 6 MiB in, and out.
big = json.dumps({"op": "size", "size": 6291454, "pad": "x" * (6291456 - 60)})
answer = client.invoke(FunctionName="probe", Payload=io.BytesIO(big.encode()))
expect(len(answer["Payload"].read()), 6291456)

functions = [f["FunctionName"] for page in client.get_paginator("list_functions").paginate() for f in page["Functions"]]
expect(functions, ["alone", "hasty", "probe"])
expect(client.get_function(FunctionName="probe")["Configuration"]["State"], "Active")
expect(client.get_function_configuration(FunctionName=arn)["Timeout"], 20)
print("all as expected")
