"""milvus-lite, a server of its own with Milvus' protocol: HNSW."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from index_loop import keep_on, run
from pymilvus import DataType, MilvusClient

AT_ONCE = 1000
READY_S = 60.0


class Engine:
    """HNSW of 16 connections; the value is ``ef``."""

    def build(self, stored: np.ndarray) -> None:
        """Start the server, insert every vector, flush, load."""
        self._folder = tempfile.TemporaryDirectory(prefix="peer-")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        program = str(Path(sys.executable).parent / "milvus-lite")
        command = [program, "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--data-dir", f"{self._folder.name}/data"]
        self._server = subprocess.Popen(command, stdout=sys.stderr, cwd=self._folder.name)
        # The server keeps the cores that it was started with.
        keep_on("CALLER_CORES")
        self._client = self._connect(f"http://127.0.0.1:{port}")
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=stored.shape[1])
        index = self._client.prepare_index_params()
        graph = {"M": 16, "efConstruction": 100}
        index.add_index("v", index_type="HNSW", metric_type="IP", params=graph)
        self._client.create_collection("bench", schema=schema, index_params=index)
        for start in range(0, len(stored), AT_ONCE):
            part = stored[start : start + AT_ONCE]
            rows = [{"id": start + i, "v": vector} for i, vector in enumerate(part)]
            self._client.insert("bench", rows)
        self._client.flush("bench")
        self._client.load_collection("bench")

    def search(self, queries: np.ndarray, k: int, value: int) -> list:
        """Rows of each query's neighbours."""
        params = {"metric_type": "IP", "params": {"ef": value}}
        found = self._client.search("bench", list(queries), limit=k, search_params=params)
        return [[hit["id"] for hit in hits] for hits in found]

    def close(self) -> None:
        """End the server and give the folder back."""
        self._server.terminate()
        self._server.wait(20)
        self._folder.cleanup()

    def _connect(self, address: str) -> MilvusClient:
        limit = time.monotonic() + READY_S
        while time.monotonic() < limit and self._server.poll() is None:
            with contextlib.suppress(Exception):  # pymilvus raises a kind of its own for each
                return MilvusClient(address, timeout=5)
            time.sleep(0.3)
        raise SystemExit(f"expected milvus-lite at {address}, got none")


run(Engine())
