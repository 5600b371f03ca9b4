"""The Python runtime loop: waits for commands on the work channel (descriptor 3), imports a handler, answers requests.

A message on the channel is a 4-byte little-endian length and that many bytes. A command's first byte says what it is,
the rest is JSON. An answer's first byte is its status:

    command  I  import {"dir", "module", "function", "env"} answer R  imported
             V  invoke {"event", "context"}                       K  result (JSON) follows
                                                                  E  error (JSON) follows
                                                                  P  a part of the result follows, and the answer later

Parts come only where the context has "stream"; after them the result is empty. An answer that is too long is cut where that can be seen.

Every command comes just after a fork of the sandbox, so random state that was copied is made anew first.
"""

import os
import sys


def _main():
    import json
    import time

    read, write, loads = os.read, os.write, json.loads
    dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    modules = sys.modules
    handler = None
    longest = 6 << 20

    def receive():
        data = read(3, 65536)
        if not data:
            os._exit(0)
        need = 4 + int.from_bytes(data[:4], "little")
        if len(data) < need:
            parts = [data]
            have = len(data)
            while have < need:
                part = read(3, min(1 << 20, need - have))
                if not part:
                    os._exit(0)
                parts.append(part)
                have += len(part)
            data = b"".join(parts)
        return data[4:5], data[5:need]

    def send(status, body):
        body = body[: longest + 1]
        message = (len(body) + 1).to_bytes(4, "little") + status + body
        done = write(3, message)
        while done < len(message):
            done += write(3, message[done : done + (1 << 20)])

    def send_parts(parts):
        for part in parts:
            part = memoryview(part.encode() if isinstance(part, str) else part).cast("B")
            for at in range(0, len(part), 1 << 20):
                send(b"P", bytes(part[at : at + (1 << 20)]))

    def call(module, name, *arguments):
        # A module of the user's may have taken the name: what it lacks is not missed.
        function = getattr(modules.get(module), name, None)
        if callable(function):
            function(*arguments)

    def reseed():
        call("random", "seed")
        module = modules.get("tempfile")
        if module is not None:
            module._name_sequence = None
        module = modules.get("uuid")
        if module is not None:
            # libuuid keeps its node and clock sequence where they cannot be reset: version 1 is then made by Python, with a random
            # node of its own (RFC 4122, section 4.5) and a sequence from the generator reseeded above.
            module._generate_time_safe = None
            module._last_timestamp = None
            module._node = int.from_bytes(os.urandom(6), "big") | 1 << 40
        call("ssl", "RAND_add", os.urandom(32), 32.0)
        call("numpy.random", "seed")

    def describe(error):
        import traceback

        frames = traceback.extract_tb(error.__traceback__)
        own = __file__ if "__file__" in globals() else "<string>"
        stack = [line for f, line in zip(frames, traceback.format_list(frames)) if f.filename != own]
        try:
            message = str(error)
        except Exception as second:
            # The user's own __str__ may fail; that must not end the loop.
            message = "<no message: its __str__ raised %s>" % type(second).__name__
        return {
            "errorMessage": message,
            "errorType": type(error).__name__,
            "stackTrace": stack,
        }

    class Client:
        """The app that called, of a client context."""

        __slots__ = (
            "installation_id",
            "app_title",
            "app_version_name",
            "app_version_code",
            "app_package_name",
        )

    class ClientContext:
        """What the client says of itself, as on AWS Lambda."""

        __slots__ = ("custom", "env", "client")

    def client_context(said):
        def filled(kind, fields):
            made = kind()
            for name in kind.__slots__:
                setattr(made, name, fields.get(name))
            return made

        if not isinstance(said, dict):
            return None
        made = filled(ClientContext, said)
        made.client = filled(Client, made.client) if isinstance(made.client, dict) else None
        return made

    class Context:
        """What the handler gets as its second argument, as on AWS Lambda."""

        __slots__ = (
            "function_name",
            "function_version",
            "invoked_function_arn",
            "memory_limit_in_mb",
            "aws_request_id",
            "log_group_name",
            "log_stream_name",
            "identity",
            "client_context",
            "_deadline",
        )

        def __init__(self, fields):
            self.function_name = fields.get("function_name", "")
            self.function_version = fields.get("function_version", "$LATEST")
            self.invoked_function_arn = fields.get("invoked_function_arn", "")
            self.memory_limit_in_mb = fields.get("memory_limit_in_mb", 0)
            self.aws_request_id = fields.get("request_id", "")
            self.log_group_name = fields.get("log_group_name", "")
            self.log_stream_name = fields.get("log_stream_name", "")
            self.identity = None
            self.client_context = client_context(fields.get("client_context"))
            self._deadline = time.monotonic() + fields.get("timeout_ms", 0) / 1000

        def get_remaining_time_in_millis(self):
            return max(0, int((self._deadline - time.monotonic()) * 1000))

        def log(self, message):
            sys.stderr.write(str(message))

    def load(command):
        from importlib import import_module, util

        os.environ.update(command.get("env") or {})
        directory, name = command["dir"], command["module"]
        # Layers of AWS Lambda lie here.
        version = "python%d.%d" % sys.version_info[:2]
        for path in ("/opt/python", "/opt/python/lib/%s/site-packages" % version, directory):
            if path not in sys.path and os.path.isdir(path):
                sys.path.insert(0, path)
        # The very file that was named, even where its name is a loaded module's (json.py) or no module's (a.b.py).
        known = name if name not in modules and "." not in name else "handler_" + name.replace(".", "_")
        if "/" in name:
            # In a package, which may be imported from relatively.
            module = import_module(name.replace("/", "."))
        else:
            spec = util.spec_from_file_location(known, os.path.join(directory, name + ".py"))
            module = modules[known] = util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                modules.pop(known, None)
                raise
        function = module
        for name in command["function"].split("."):
            function = getattr(function, name)
        if not callable(function):
            raise TypeError("handler %s.%s is not callable" % (command["module"], command["function"]))
        return function

    # Line by line, as on AWS Lambda: what a handler printed is there also when it does not come back.
    sys.stdout.reconfigure(line_buffering=True)
    # What an answer needs besides the handler is loaded and run once here, in the seed.
    Context(loads(b'{"request_id": "0"}'))
    dumps({"a": [1, 2.5, None, True, "\u00e9"]}).encode()
    import gc

    gc.collect()
    gc.freeze()

    while True:
        kind, body = receive()
        reseed()
        try:
            command = loads(body)
            if kind == b"I":
                handler = load(command)
                gc.collect()
                gc.freeze()
                status, answer = b"R", b""
            else:
                context = command["context"]
                os.environ["_X_AMZN_TRACE_ID"] = context.get("trace", "")
                result = handler(command["event"], Context(context))
                status, answer = b"K", b""
                if "stream" in context and hasattr(result, "__next__"):
                    send_parts(result)
                else:
                    try:
                        text = dumps(result)
                        try:
                            answer = text.encode()
                        except UnicodeEncodeError:
                            # Half of a surrogate pair has no encoding, only an escape.
                            answer = json.dumps(result, allow_nan=False).encode()
                    except (TypeError, ValueError, RecursionError) as error:
                        status = b"E"
                        answer = dumps(
                            {
                                "errorMessage": "Unable to marshal response: %s" % error,
                                "errorType": "Runtime.MarshalError",
                                "stackTrace": [],
                            }
                        ).encode()
        except SystemExit as error:
            status = b"E"
            answer = dumps(
                {
                    "errorMessage": "the function exited with status %r" % (error.code,),
                    "errorType": "Runtime.ExitError",
                    "stackTrace": [],
                }
            ).encode()
        except BaseException as error:
            status, answer = b"E", dumps(describe(error)).encode("utf-8", "replace")
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        send(status, answer)


_main()
