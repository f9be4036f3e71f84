"""From a cell to a row: public work once, one release, the same evaluation for every method.

A cell is adapted (`dphyper.bench.release`), sampled, judged by every registered metric, and written as one row. A
cell that fails becomes a row with its error, whatever the error, and what it had released stays charged. Numbers that
are not finite fail the cell where they arise (`dphyper.core.finite`), so that a done row has none.
"""

import functools
import importlib.metadata
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dphyper.bench.catalog import METHODS, canonical
from dphyper.bench.method import Method
from dphyper.bench.provenance import provenance
from dphyper.bench.public_work import PublicPart, PublicWork, distinct_public_work
from dphyper.bench.release import generator, release
from dphyper.bench.searches import RecordedSearch, selection_of
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import PrivacyError, UserError, disk_is_full, in_one_line
from dphyper.core.files import whole_file
from dphyper.core.finite import require_finite
from dphyper.core.specs import Cell, Performance
from dphyper.metrics.evaluation import Evaluator
from dphyper.metrics.metric import METRICS, Evidence, Features
from dphyper.privacy.statement import privacy_statement

_LOSS_RECORDS = 512  # of the reference, on which the loss is taken: a bound on its cost, not on its meaning
_SHEET = (5, 10)  # rows and columns of a sheet of images


class Runner:
    """Runs cells into a store.

    Args:
        store: Where rows go.
        performance: Device, threads, cache.
        tracking: The sink for progress.
        sweep: Name written into the rows.
        searches: Recorded searches that options other than the defaults may come from.

    Attributes:
        public: The public work that cells share.
        evaluator: `Protocol` to its evaluator, which is loaded once.
    """

    def __init__(
        self,
        store: Store,
        performance: Performance,
        tracking: Tracking,
        sweep: str,
        searches: Sequence[RecordedSearch] = (),
    ) -> None:
        self.store, self.tracking, self.sweep, self.searches = store, tracking, sweep, searches
        if performance.threads:
            torch.set_num_threads(performance.threads)
        self.public = PublicWork(performance, tracking)
        self.evaluator = functools.cache(
            lambda protocol: Evaluator(protocol, weights=performance.weights, device=self.public.device)
        )

    def check(self, cells: Iterable[Cell], judges: Iterable[Cell] = ()) -> None:
        """Find the user's mistakes before anything is computed.

        Args:
            cells: To be run.
            judges: Cells by whose rows something is chosen.

        Raises:
            UserError: Unknown task, n too large for it, a missing weight file, a base model that does not fit, an
                embedding dimension above the number of features, a store with rows of another protocol.
        """
        cells = list(cells)
        self.check_data(cells, judges)
        protocols = {self.evaluator(cell.protocol).protocol_hash for cell in cells}
        for cell in distinct_public_work(cells):
            try:
                self.public.untrained_method(cell, self.public.untrained_base(cell))
            except UserError:
                raise
            except Exception:  # a fault of the method: the cells that need it fail, and the others run
                logging.getLogger(__name__).exception("method %s cannot be built", cell.method)
        stored = self.store.protocols()
        if len(protocols | stored) > 1:
            raise UserError(
                f"store '{self.store.root}' would mix evaluation protocols {', '.join(sorted(protocols | stored))}: "
                "rows of different protocols cannot be compared, name another store"
            )

    def check_data(self, cells: Iterable[Cell], judges: Iterable[Cell] = ()) -> None:
        """Find mistakes about tasks and base models, and print what each collection has left out; writes nothing.

        Args:
            cells: To be run.
            judges: Cells by whose rows something is chosen.

        Raises:
            UserError: A task that is unknown or public, n too large for it, data that cannot be read, a base model
                that does not fit them, or a private task that would choose.
        """
        cells = list(cells)
        for data in dict.fromkeys(cell.data for cell in cells):
            for line in self.public.collection(data).account:
                print(f"data: {line}", flush=True)
            self.public.collection(data).require(cell.task for cell in cells if cell.data == data)
        for data, task in dict.fromkeys((cell.data, cell.task) for cell in judges):
            collection = self.public.collection(data)
            if collection.held_out(task).split != "tuning":
                raise UserError(
                    f"task '{task}' of '{collection.name}' is private, and a search would choose by it: choosing on "
                    "private records has a price, which dp_sgd_tuned pays; expected tuning tasks, some of "
                    + ", ".join(other.id for other in collection.select("tuning"))
                )
        for data, task, n in dict.fromkeys((cell.data, cell.task, cell.n) for cell in cells):
            self.public.collection(data).draw(task, n, seed=0)
        for cell in {(cell.data, cell.base): cell for cell in cells}.values():
            base = self.public.untrained_base(cell)
            # θ of a target that all methods share; one with an adapter of its own says so in its options.
            for line in base.target(cell.base).account:
                print(f"target: {line}", flush=True)

    def make(self, part: PublicPart, *, threads: int) -> float:
        """Make public work where it is missing, with so many threads; seconds that it took when it was made."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return part.make()
        finally:
            torch.set_num_threads(before)

    def run(self, cell: Cell) -> Row:
        """Run one cell and store its row.

        Raises:
            UserError: Its data, method or protocol cannot be read, so that nothing is known of it; nothing is stored.
            Exception: The disk is full; nothing is stored.
        """
        cell = canonical(cell)
        row: Row = self._facts(cell)
        folder = self.store.directory(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            row.update(self._measure(cell, folder, row["selection"]))  # type: ignore[typeddict-item]
        except Exception as error:  # a failed cell is a result; the sweep goes on
            if disk_is_full(error):
                raise
            if not isinstance(error, (UserError, PrivacyError)):
                logging.getLogger(__name__).exception("cell %s failed", cell.id)
            return self.failed(cell, in_one_line(error))
        return self._keep(cell, row)

    def failed(self, cell: Cell, error: str) -> Row:
        """Store the row of a cell that failed."""
        row = self._facts(cell)
        row["status"], row["error"] = "failed", error
        return self._keep(cell, row)

    def _keep(self, cell: Cell, row: Row) -> Row:
        self.store.write(cell, row)
        self.tracking.cell(cell, row, self.store)
        return row

    def _facts(self, cell: Cell) -> Row:
        """What is known of a cell before it runs."""
        collection = self.public.collection(cell.data)
        kind = METHODS[cell.method]
        task = collection.task(cell.task)
        selection, search = selection_of(kind, cell.method, cell.options, self.searches, split=task.split)
        return Row(
            schema=SCHEMA,
            cell=cell.id,
            status="done",
            error="",
            sweep=self.sweep,
            collection=collection.name,
            task=task.id,
            family=task.family,
            split=task.split,
            development=task.development,
            distance=task.distance,
            n=cell.n,
            method=cell.method,
            role=kind.role,
            epsilon=cell.epsilon,
            delta=cell.delta,
            relation=cell.relation,
            embedding_dim=cell.embedding_dim,
            seed=cell.seed,
            noise_draw=cell.noise_draw,
            private=kind.private and not cell.reproducible_noise,
            selection=selection,
            search=search,
            harness=importlib.metadata.version("dphyper"),
            protocol=self.evaluator(cell.protocol).protocol_hash,
            extractor=cell.protocol.extractor,
        )

    def _measure(self, cell: Cell, folder: Path, selection: str) -> dict[str, Any]:
        """Adapt, sample, judge."""
        collection = self.public.collection(cell.data)
        draw = collection.draw(cell.task, cell.n, cell.seed)
        method, seconds_public = self.public.method(cell)
        released = release(cell, method, draw, folder)
        ledger, theta = released.ledger, released.adaptation.theta
        private = method.private and not cell.reproducible_noise and ledger.private

        begin = time.perf_counter()
        images = method.target.sample(theta, cell.protocol.num_images, generator(cell.seed, "sampling"))
        with whole_file(folder / "samples.npz") as temporary:
            np.savez_compressed(temporary, images=images)
        save_sheet(images, folder / "samples.png")
        tuning = collection.task(cell.task).split == "tuning"
        shown = tuning or cell.data.show_reference or collection.show_reference
        if shown:
            save_sheet(draw.reference, folder / "reference.png")
        evaluator = self.evaluator(cell.protocol)
        reference = self.public.features(evaluator, draw.reference)
        evidence = Evidence(
            generated=images,
            reference=draw.reference,
            generated_features=evaluator.features(images),
            reference_features=reference,
            # The row of a private method is published: it must hold no function of private records but the release.
            private_features=evaluator.features(draw.records) if tuning or not private else None,
            reference_losses=_losses(method, theta, draw.reference, cell.seed),
        )
        metrics = evaluator.judge(evidence)
        real_metrics, num_real = evaluator.judge_real(reference, seed=cell.seed)
        shift = self._public_shift(cell, evaluator, reference)
        for name, value in (*metrics.items(), *real_metrics.items(), ("frechet of public images", shift)):
            require_finite(f"metric {name}", value)
        seconds = {"seconds_adapt": released.seconds, "seconds_evaluate": time.perf_counter() - begin}
        public = f"the public {'' if tuning else 'and tuning '}tasks of {collection.name}"
        return {
            "private": private,
            "epsilon_spent": ledger.spent(),
            "metrics": metrics,
            "real_metrics": real_metrics,
            "diagnostics": dict(released.adaptation.diagnostics),
            "num_images": len(images),
            "num_reference": len(reference),
            "num_real": num_real,
            "public_shift": shift,
            "seconds_public": seconds_public,
            **(seconds if released.seconds is not None else {}),
            "parameters": method.target.num_parameters,
            "base_hash": self.public.base_key(cell.data, cell.base),
            "provenance": collection.provenance(cell.task, self.store.key()),
            **provenance(),
            "statement": privacy_statement(
                cell, ledger, selection=selection, public_data=public, reference_shown=shown
            ),
        }

    def _public_shift(self, cell: Cell, evaluator: Evaluator, reference: Features) -> float:
        """Fréchet distance from public images to the reference, on the evaluation's features."""
        collection = self.public.collection(cell.data)
        rows = np.unique(np.concatenate([task.indices for task in collection.select("public")]))
        some = np.random.default_rng(0).permutation(rows)[: max(cell.protocol.num_images, 2)]
        public = self.public.features(evaluator, collection.records[some])
        return METRICS["frechet"].compute(Evidence(generated_features=public, reference_features=reference))


@torch.no_grad()
def _losses(method: Method, theta: torch.Tensor, reference: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """Losses of reference records at times and noises that are the same for all methods of a seed."""
    x = method.target.encode(reference[:_LOSS_RECORDS])
    losses = method.target.per_example_loss(theta, x, generator(seed, "loss"), stratified=True)
    return losses.cpu().numpy()


def save_sheet(images: NDArray[Any], path: Path) -> None:
    """Write the first images as one PNG, side by side."""
    rows, columns = _SHEET
    shown = images[: columns * rows]
    _, height, width, channels = shown.shape
    sheet = np.zeros((rows * height, columns * width, channels), np.uint8)
    for index, image in enumerate(shown):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = image
    with whole_file(path) as temporary:
        Image.fromarray(sheet.squeeze()).save(temporary)
