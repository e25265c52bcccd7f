"""A server that answers as the Kubernetes API does, for the calls on RayJobs that the scheduler makes."""

import copy
import datetime
import ipaddress
import json
import ssl
import threading
import time
import urllib.parse
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists",
    422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
}  # fmt: skip


def status(code, message, reason=None):
    """Return the Status object that comes with an error."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason or REASONS[code], "code": code,
    }  # fmt: skip


class FakeKubernetes:
    """Keeps RayJobs of a namespace; ``troubles`` are answers to give first, one a request."""

    def __init__(self, token="good"):
        self.jobs, self.token = {}, token
        self.rights = {"create", "get", "list"}
        self.troubles, self.requests = [], []
        self._lock = threading.Lock()

    def add(self, name, labels=None, spec=None, state=None):
        """Put a RayJob there."""
        self.jobs[name] = {
            "apiVersion": "ray.io/v1", "kind": "RayJob", "spec": spec or {},
            "metadata": {"name": name, "namespace": "ns", "labels": labels or {}},
        }  # fmt: skip
        if state:
            self.jobs[name]["status"] = {"jobDeploymentStatus": state}

    def answer(self, method, path, headers, body):
        """Return code, headers and the object to answer with."""
        with self._lock:
            self.requests.append((method, path))
            if headers.get("Authorization") != f"Bearer {self.token}":
                return 401, {}, status(401, "Unauthorized")
            url = urllib.parse.urlsplit(path)
            base, _, name = url.path.partition("/rayjobs")
            if base != "/apis/ray.io/v1/namespaces/ns":
                return 404, {}, status(404, "the server could not find the requested resource")
            verb = {"POST": "create", "GET": "get" if name else "list"}[method]
            if verb not in self.rights:
                return (
                    403,
                    {},
                    status(403, f'rayjobs.ray.io is forbidden: User cannot {verb} resource "rayjobs"'),
                )
            return getattr(self, f"_{verb}")(name.strip("/"), urllib.parse.parse_qs(url.query), body)

    def _get(self, name, query, body):
        if name not in self.jobs:
            return 404, {}, status(404, f'rayjobs.ray.io "{name}" not found')
        return 200, {}, self.jobs[name]

    def _list(self, name, query, body):
        key, _, value = query.get("labelSelector", [""])[0].partition("=")
        items = [j for j in self.jobs.values() if not key or j["metadata"]["labels"].get(key) == value]
        return 200, {}, {"kind": "RayJobList", "apiVersion": "ray.io/v1", "items": items}

    def _create(self, name, query, body):
        job = json.loads(body)
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, {}, status(409, f'rayjobs.ray.io "{name}" already exists')
        if job["metadata"].get("namespace", "ns") != "ns":
            return 400, {}, status(400, "the namespace of the object does not match the request")
        if "resourceVersion" in job["metadata"]:
            return 400, {}, status(400, "resourceVersion should not be set on objects to be created")
        if "entrypoint" not in job["spec"]:
            return 422, {}, status(422, f'RayJob.ray.io "{name}" is invalid: spec.entrypoint: Required value')
        self.jobs[name] = copy.deepcopy(job)
        self.jobs[name]["metadata"]["uid"] = str(uuid.uuid4())
        return 201, {}, self.jobs[name]


def _handler(fake):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            trouble = fake.troubles.pop(0) if fake.troubles else None
            if trouble == "cut":  # the connection breaks before the request is carried out
                fake.requests.append((self.command, "cut"))
                self.close_connection = True
                return
            code, headers, answer = fake.answer(self.command, self.path, self.headers, body)
            if trouble == "lost":  # carried out, but the answer never arrives
                self.close_connection = True
                return
            if trouble == "slow":
                time.sleep(2)
            elif isinstance(trouble, tuple):
                code, headers, answer = trouble
            text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(code)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                self.close_connection = True  # the client gave up waiting

        do_GET = do_POST = _any  # noqa: N815

        def log_message(self, *args):
            pass

    return Handler


def certificate(folder):
    """Write ``ca.crt`` and ``server.pem`` for 127.0.0.1 to ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.crt").write_bytes(public)
    (folder / "server.pem").write_bytes(public + private)


@contextmanager
def serving(fake, folder):
    """Serve ``fake`` with the certificate in ``folder``; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
