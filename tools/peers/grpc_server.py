"""The least that a Python gRPC server with batching is: ``grpc_server.py GRAPH PORT BATCH``.

A thread per call, a queue, one thread that runs whatever has queued; no limits, no checks.
"""

import queue
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime

from embedkit.wire.proto import embedding_pb2, tensor_pb2


def run_batches(
    session: onnxruntime.InferenceSession, line: queue.SimpleQueue, most: int
) -> None:
    """Run what waits, up to ``most`` images at a time, for ever."""
    held = None
    while True:
        taken = [held or line.get()]
        held, count = None, len(taken[0][0])
        while count < most and not line.empty():
            item = line.get()
            if count + len(item[0]) > most:
                held = item
                break
            taken.append(item)
            count += len(item[0])
        images = np.concatenate([item[0] for item in taken])
        rows = session.run(["embedding"], {"images": images})[0]
        start = 0
        for images, future in taken:
            future.set_result(rows[start : start + len(images)])
            start += len(images)


def main(graph: str, port: str, batch: str) -> None:
    """Serve ``Embed`` until the process is ended."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    line: queue.SimpleQueue = queue.SimpleQueue()

    def embed(
        request: embedding_pb2.EmbedRequest, _: grpc.ServicerContext
    ) -> embedding_pb2.EmbedResponse:
        pixels = request.pixels
        images = np.frombuffer(pixels.data, np.uint8).reshape(pixels.shape)
        future: Future = Future()
        line.put((images, future))
        rows = future.result()
        tensor = tensor_pb2.Tensor(data=rows.tobytes(), dtype=tensor_pb2.FLOAT32)
        tensor.shape.extend(rows.shape)
        return embedding_pb2.EmbedResponse(embeddings=tensor)

    handler = grpc.unary_unary_rpc_method_handler(
        embed,
        embedding_pb2.EmbedRequest.FromString,
        embedding_pb2.EmbedResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(128))
    server.add_registered_method_handlers("embedkit.v1.EmbeddingService", {"Embed": handler})
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    threading.Thread(target=run_batches, args=(session, line, int(batch)), daemon=True).start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
