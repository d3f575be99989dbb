"""A client that knows nothing of Balsa: gRPC and server reflection, as any language has them.

usage: client.py HOST:PORT HOST:PORT

Talks to the first node: lists its services, makes messages from the descriptors it serves, puts and gets with them, and asks
for its health. Then reads from the second node what it wrote to the first. Ends with code 0 if all was as it should be.
"""

import sys
import uuid

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "kvstore.v1.KvStore"


class Client:
    """One node, and the services that it describes."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.reflection)

    def call(self, service, method, metadata=(), /, **fields):
        """Calls a unary method with a message made of `fields`: the reply and its initial metadata."""
        descriptor = self.pool.FindServiceByName(service).FindMethodByName(method)
        request = message_factory.GetMessageClass(descriptor.input_type)(**fields)
        reply = message_factory.GetMessageClass(descriptor.output_type)
        stub = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        response, call = stub.with_call(request, metadata=metadata, timeout=20)
        return response, dict(call.initial_metadata())


def expect(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r}, not {expected!r}")


def check_services(client):
    services = client.reflection.get_services()
    for name in (SERVICE, "balsa.admin.v1.Admin", "grpc.health.v1.Health"):
        if name not in services:
            sys.exit(f"{name} is not among the services: {services}")
    methods = [method.name for method in client.pool.FindServiceByName(SERVICE).methods]
    if not {"Put", "Get", "Delete", "List", "Txn"} <= set(methods):
        sys.exit(f"methods are missing: {methods}")


def check_put(client):
    """Puts twice under one idempotency key; the log index of it."""
    key = [("idempotency-key", str(uuid.uuid4()))]
    fields = {"key": b"greeting", "value": b"hello from Python \x00\xff"}
    first, metadata = client.call(SERVICE, "Put", key, **fields)
    expect("version", first.version, 1)
    expect("balsa-index", metadata["balsa-index"], str(first.mod_index))
    expect("balsa-replayed", metadata.get("balsa-replayed"), None)
    again, metadata = client.call(SERVICE, "Put", key, **fields)
    expect("the reply to a retry", again, first)
    expect("balsa-replayed", metadata["balsa-replayed"], "true")
    return first.mod_index


def check_get(client, index):
    stale = [("balsa-consistency", "stale"), ("balsa-min-index", str(index))]
    for metadata in ((), stale):
        found, about = client.call(SERVICE, "Get", metadata, key=b"greeting")
        expect("value", found.kv.value, b"hello from Python \x00\xff")
        expect("mod_index", found.kv.mod_index, index)
        if int(about["balsa-index"]) < index:
            sys.exit(f"it read at {about['balsa-index']}, before {index}")
    absent, _ = client.call(SERVICE, "Get", key=b"absent")
    expect("an absent key", absent.HasField("kv"), False)


def check_errors(client):
    try:
        client.call(SERVICE, "Put", key=b"")
    except grpc.RpcError as error:
        expect("the code for an empty key", error.code(), grpc.StatusCode.INVALID_ARGUMENT)
    else:
        sys.exit("an empty key was stored")


def check_health(client):
    health, _ = client.call("grpc.health.v1.Health", "Check")
    expect("health", health.status, 1)
    health, _ = client.call("grpc.health.v1.Health", "Check", service=SERVICE)
    expect(f"health of {SERVICE}", health.status, 1)


def main(first, second):
    client = Client(first)
    check_services(client)
    index = check_put(client)
    check_get(client, index)
    check_get(Client(second), index)
    check_errors(client)
    check_health(client)
    print("OK")


main(*sys.argv[1:])
