"""A controller and an invoker in Python, against a running router.

They are made from the proto files by protobuf's own compiler and know nothing else of the router: what works here works
from any language that gRPC has. Run it with a Python that has requirements.txt, after `cargo build -p activation-router`:

    python proto/tests/python/test_any_language.py

ACTIVATION_ROUTER names another binary. Every wait has an end, and fails by name when it comes.
"""

import collections
import importlib
import itertools
import os
import pathlib
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROTO.parent / "target"))
BINARY = pathlib.Path(os.environ.get("ACTIVATION_ROUTER", TARGET / "debug" / "activation-router"))

# How long anything may take before it counts as failed. What the router does here takes milliseconds.
WAIT_S = 20
TIME_LEFT_MS = 10_000
RUN_US = 1234

END = object()


def setUpModule():
    """Makes the client, starts the router."""
    global activation, controller, invoker, service, router
    generated = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(generated.cleanup)
    generate(generated.name)
    sys.path.insert(0, generated.name)
    unittest.addModuleCleanup(sys.path.remove, generated.name)
    activation = importlib.import_module("router.v1.activation_pb2")
    controller = importlib.import_module("router.v1.controller_pb2")
    invoker = importlib.import_module("router.v1.invoker_pb2")
    service = importlib.import_module("router.v1.router_pb2_grpc")
    router = Router()
    unittest.addModuleCleanup(router.stop)


def generate(folder):
    files = sorted(PROTO.glob("router/v1/*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    options = [f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    status = protoc.main(["protoc", *options, *map(str, files)])
    assert status == 0, f"protoc ended with {status} on {files}"


class Router:
    """A router process on free ports of the loopback."""

    def __init__(self):
        assert BINARY.is_file(), f"{BINARY} is missing: cargo build -p activation-router, or set ACTIVATION_ROUTER"
        ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command = [BINARY, "serve", "--log", "warn", *ports]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        try:
            self.address = self._address()
        except BaseException:
            self.process.kill()
            self.process.wait(WAIT_S)
            raise

    def _address(self):
        lines = queue.Queue()
        threading.Thread(target=lambda: lines.put(self.process.stdout.readline()), daemon=True).start()
        line = lines.get(timeout=WAIT_S)
        found = re.fullmatch(r"listening on (\S+) \(admin on (\S+)\)\n", line)
        assert found, f"the router's first line was {line!r}"
        return found[1]

    def stop(self):
        """Asks it to stop; with nothing in hand it does so at once and says that all is well."""
        self.process.terminate()
        try:
            status = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(WAIT_S)
            raise
        finally:
            self.process.stdout.close()
        assert status == 0, f"the router ended with {status}"


class Stream:
    """Both directions of a stream. Sending never waits; what comes is read by a thread, so that waiting can end."""

    def __init__(self, method):
        self._out, self._in = queue.Queue(), queue.Queue()
        self._call = method(iter(self._out.get, END), timeout=3 * WAIT_S)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            for frame in self._call:
                self._in.put(frame)
            self._in.put(END)
        except grpc.RpcError as error:
            self._in.put(error)

    def send(self, frame):
        self._out.put(frame)

    def finish(self):
        """Nothing more will be sent."""
        self._out.put(END)

    def next(self):
        """The next frame, or END; raises the status if the call ended with one."""
        frame = self._in.get(timeout=WAIT_S)
        if isinstance(frame, grpc.RpcError):
            raise frame
        return frame

    def frames(self):
        """All frames until the router ends the stream."""
        return iter(self.next, END)

    def close(self):
        self._call.cancel()
        self.finish()
        self._reader.join(WAIT_S)


class Container:
    """An invoker node with one container that returns payloads reversed."""

    CONCURRENCY = 4

    def __init__(self, stub, key, unstarted=0):
        """Hands the first `unstarted` activations back unstarted."""
        self.unstarted = unstarted
        self.attempts = collections.defaultdict(list)
        self.refusals = []
        self.failure = None
        self.stream = Stream(stub.Pull)
        hello = invoker.InvokerHello(invoker_id="python-invoker")
        # Fewer credits than it may have, so that granting is seen to work too.
        register = invoker.Register(container=7, key=key, concurrency=self.CONCURRENCY, credits=1, warm=True)
        credit = invoker.Credit(container=7, credits=self.CONCURRENCY - 1)
        self.stream.send(invoker.PullRequest(hello=hello, registers=[register], credits=[credit]))
        self.welcome = self.stream.next().welcome
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            for frame in self.stream.frames():
                self.refusals.extend(frame.refusals)
                for dispatch in frame.dispatches:
                    self._handle(dispatch)
        except Exception as error:  # For close(), which tells it in the test's own thread.
            if not (isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.CANCELLED):
                self.failure = error

    def _handle(self, dispatch):
        assert dispatch.container == 7, dispatch
        self.attempts[dispatch.id].append(dispatch.attempt)
        if self.unstarted > 0:
            self.unstarted -= 1
            back = invoker.Return(container=7, id=dispatch.id, payload=dispatch.payload)
            self.stream.send(invoker.PullRequest(returns=[back]))
            # A return grants nothing, and in its own frame the credit would be handled first: there would be one too many.
            self.stream.send(invoker.PullRequest(credits=[invoker.Credit(container=7, credits=1)]))
        else:
            result = dispatch.payload[::-1]
            done = invoker.Completion(container=7, id=dispatch.id, result=result, run_us=RUN_US, credits=1)
            self.stream.send(invoker.PullRequest(completions=[done]))

    def close(self):
        self.stream.close()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the container's thread did not end"
        assert self.failure is None, self.failure
        assert not self.refusals, self.refusals


class AnyLanguage(unittest.TestCase):
    _numbers = itertools.count()

    def setUp(self):
        channel = grpc.insecure_channel(router.address)
        self.addCleanup(channel.close)
        self.stub = service.RouterStub(channel)
        # An action of each test's own, so that none sees another's queue or containers.
        action = f"{self.id().rsplit('.', 1)[-1]}-{next(self._numbers)}"
        self.key = activation.ActionKey(namespace="python", action=action, revision="1")

    def container(self, **options):
        container = Container(self.stub, self.key, **options)
        self.addCleanup(container.close)
        return container

    def invoke(self, **fields):
        request = {"key": self.key, "time_left_ms": TIME_LEFT_MS, **fields}
        return self.stub.Invoke(controller.InvokeRequest(**request), timeout=WAIT_S).answer

    def push(self):
        """An open Push stream on which number 1 is this test's action."""
        stream = Stream(self.stub.Push)
        self.addCleanup(stream.close)
        hello = controller.ControllerHello(controller_id=f"controller of {self.key.action}")
        declare = controller.DeclareAction(number=1, key=self.key)
        stream.send(controller.PushRequest(hello=hello, declares=[declare]))
        welcome = stream.next().welcome
        self.assertEqual(welcome.router_id, "router-0")
        self.assertGreater(welcome.frame_entries_max, 0)
        return stream

    def test_an_invoke_runs_in_a_container(self):
        container = self.container()
        self.assertGreater(container.welcome.payload_bytes_max, 0)
        id = uuid.uuid4().bytes
        begin = time.monotonic_ns()
        answer = self.invoke(id=id, payload=b"stressed")
        passed_us = (time.monotonic_ns() - begin) // 1000
        self.assertEqual(answer.outcome, activation.OUTCOME_COMPLETED)
        self.assertEqual((answer.id, answer.result), (id, b"desserts"))
        self.assertEqual(answer.run_us, RUN_US)
        # The run is the container's word; the other stages are the router's, within what passed here.
        self.assertLessEqual(answer.queue_us + answer.dispatch_us, passed_us)
        self.assertFalse(answer.HasField("rejection"))
        self.assertEqual(container.attempts, {id: [1]})

    def test_an_invoke_without_an_id_is_given_one(self):
        self.container()
        self.assertEqual(len(self.invoke(payload=b"-").id), 16)

    def test_what_is_returned_unstarted_runs_later(self):
        container = self.container(unstarted=1)
        answer = self.invoke(payload=b"again")
        self.assertEqual((answer.outcome, answer.result), (activation.OUTCOME_COMPLETED, b"niaga"))
        self.assertEqual(container.attempts, {answer.id: [1, 2]})

    def test_what_nobody_runs_in_time_expires(self):
        answer = self.invoke(time_left_ms=50)
        self.assertEqual(answer.outcome, activation.OUTCOME_EXPIRED)
        self.assertGreaterEqual(answer.queue_us, 50_000)

    def test_each_pushed_activation_is_answered_once(self):
        self.container(unstarted=2)
        stream = self.push()
        payloads = {uuid.uuid4().bytes: f"payload {number}".encode() for number in range(50)}
        pending = [controller.Activation(id=id, action=1, time_left_ms=TIME_LEFT_MS, payload=payload)
                   for id, payload in payloads.items()]
        while pending:
            stream.send(controller.PushRequest(activations=pending[:20]))
            del pending[:20]
        stream.finish()
        # The router ends the stream when it owes nothing more: a second answer would be seen.
        frames = list(stream.frames())
        answers = [answer for frame in frames for answer in frame.answers]
        self.assertFalse([refusal for frame in frames for refusal in frame.refusals])
        self.assertEqual({answer.outcome for answer in answers}, {activation.OUTCOME_COMPLETED})
        results = sorted((answer.id, answer.result) for answer in answers)
        self.assertEqual(results, sorted((id, payload[::-1]) for id, payload in payloads.items()))

    def test_a_rejection_on_a_stream_is_an_answer_and_the_stream_lives_on(self):
        self.container()
        stream = self.push()
        bad, good = uuid.uuid4().bytes, uuid.uuid4().bytes
        stream.send(controller.PushRequest(activations=[
            controller.Activation(id=bad, action=1, time_left_ms=0),
            controller.Activation(id=b"short", action=1, time_left_ms=TIME_LEFT_MS),
        ]))
        stream.send(controller.PushRequest(activations=[
            controller.Activation(id=good, action=1, time_left_ms=TIME_LEFT_MS, payload=b"ab"),
        ]))
        stream.finish()
        frames = list(stream.frames())
        answers = {answer.id: answer for frame in frames for answer in frame.answers}
        self.assertEqual(set(answers), {bad, good})
        self.assertEqual(answers[bad].outcome, activation.OUTCOME_REJECTED)
        self.assertEqual(answers[bad].rejection.reason, activation.REASON_TIME_LEFT_ZERO)
        self.assertEqual(answers[bad].rejection.field, "time_left_ms")
        self.assertEqual(answers[good].result, b"ba")
        [refusal] = [refusal for frame in frames for refusal in frame.refusals]
        self.assertEqual((refusal.reason, refusal.id), (activation.REASON_ID_LENGTH, b"short"))

    def test_who_asks_for_less_hears_only_that_it_was_taken(self):
        self.container()
        answer = self.invoke(reply=controller.REPLY_ACCEPTED)
        self.assertEqual(answer.outcome, activation.OUTCOME_ACCEPTED)
        self.assertEqual(answer.durability, activation.DURABILITY_MEMORY)

    def test_a_rejected_invoke_is_a_status_that_names_the_field(self):
        bad = {
            "time_left_ms": {"time_left_ms": 0},
            "id": {"id": b"short"},
            "reply": {"reply": 99},
            "key.namespace": {"key": activation.ActionKey(action="a")},
            "key.action": {"key": activation.ActionKey(namespace="n", action="a" * 257)},
        }
        for field, fields in bad.items():
            with self.subTest(field), self.assertRaises(grpc.RpcError) as raised:
                self.invoke(**fields)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertRegex(raised.exception.details(), rf"^{re.escape(field)}: ")

    def test_a_stream_that_does_not_say_who_is_there_ends(self):
        for method, frame in [(self.stub.Push, controller.PushRequest()), (self.stub.Pull, invoker.PullRequest())]:
            stream = Stream(method)
            self.addCleanup(stream.close)
            stream.send(frame)
            with self.assertRaises(grpc.RpcError) as raised:
                stream.next()
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("hello", raised.exception.details())


if __name__ == "__main__":
    unittest.main(verbosity=2)
