# ssl over loopback: certificates, several protocol versions, large transfers, wrong names.
import hashlib
import socket
import ssl
import threading

server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]


def serve():
    while True:
        raw, _ = listener.accept()
        try:
            with server_context.wrap_socket(raw, server_side=True) as tls:
                size = int.from_bytes(tls.recv(4), "big")
                if size == 0:
                    return
                left, digest = size, hashlib.sha256()
                while left:
                    part = tls.recv(65536)
                    digest.update(part)
                    left -= len(part)
                tls.sendall(digest.digest() + b"y" * size)
        except ssl.SSLError:
            pass


thread = threading.Thread(target=serve)
thread.start()


def connect(context, name="localhost"):
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname=name)


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile="cert.pem")
    context.minimum_version = context.maximum_version = version
    for size in (1, 100_000, 1_000_000):
        with connect(context) as tls:
            data = b"x" * size
            tls.sendall(size.to_bytes(4, "big") + data)
            reply = b""
            while len(reply) < size + 32:
                reply += tls.recv(1 << 20)
            good = reply[:32] == hashlib.sha256(data).digest()
            print(tls.version(), tls.cipher()[2], size, good, tls.getpeercert()["subject"])
for context, name in ((ssl.create_default_context(), "localhost"), (ssl.create_default_context(cafile="cert.pem"), "elsewhere")):
    try:
        connect(context, name)
    except ssl.SSLCertVerificationError as error:
        print(error.verify_message)
with connect(ssl.create_default_context(cafile="cert.pem")) as tls:
    tls.sendall(bytes(4))
thread.join()
print(len(ssl.RAND_bytes(32)))
