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
context = base64.b64encode(b'{"client": {"app_title": "app"}, "custom": {"a": "b"}}').decode()
answer = client.invoke(FunctionName="probe", ClientContext=context, Payload=b'{"op": "context"}')
expect(json.load(answer["Payload"])[:3], [{"a": "b"}, None, "app"])

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



def streamed(name, event, **more):
    """The parts, and what comes behind them."""
    answer = client.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event), **more)
    expect(answer["StatusCode"], 200)
    expect(answer["ExecutedVersion"], "$LATEST")
    *parts, complete = answer["EventStream"]
    return [part["PayloadChunk"]["Payload"] for part in parts], complete["InvokeComplete"]


expect(streamed("probe", {"op": "stream"}), ([b"first", b"\x00\xff"], {}))
parts, complete = streamed("probe", {"op": "stream", "size": 20 << 20}, LogType="Tail")
assert parts[0] == b"first" and b"".join(parts) == b"first" + b"y" * (20 << 20) + b"\x00\xff"
log = base64.b64decode(complete.pop("LogResult")).decode()
assert "\nbetween\nEND RequestId: " in log and complete == {}, log
parts, complete = streamed("probe", {"op": "stream", "raise": True})
expect((parts, complete["ErrorCode"]), ([b"first"], "Unhandled"))
expect(json.loads(complete["ErrorDetails"])["errorType"], "ValueError")
parts, complete = streamed("hasty", {"op": "stream", "seconds": 20})
expect((parts, json.loads(complete["ErrorDetails"])["errorType"]), ([b"first"], "Sandbox.Timedout"))
parts, complete = streamed("probe", {"op": "raise"})
expect((parts, json.loads(complete["ErrorDetails"])["errorType"]), ([], "ValueError"))
parts, complete = streamed("probe", {"op": "size", "size": 3 << 20})
expect((json.loads(b"".join(parts)), complete), ("x" * (3 << 20), {}))
try:
    client.invoke_with_response_stream(FunctionName="none", Payload=b"{}")
    raise AssertionError("not refused")
except client.exceptions.ResourceNotFoundException:
    pass

functions = [f["FunctionName"] for page in client.get_paginator("list_functions").paginate() for f in page["Functions"]]
expect(functions, ["alone", "hasty", "probe"])
expect(client.get_function(FunctionName="probe")["Configuration"]["State"], "Active")
expect(client.get_function_configuration(FunctionName=arn)["Timeout"], 20)
print("all as expected")
