"""One adaptation of a cell, under its ledger, and what it leaves behind.

θ, the diagnostics and the seconds of the adaptation are written in one file, so that a cell which is resumed after its
release goes on from the same numbers instead of drawing its noise again. The ledger stands beside it. A run that raises
keeps what it had released charged; one that was killed before anybody saw its release does not. One that runs out of
memory starts over once with half as many records at a time, which changes no law of what is released.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dphyper.bench.method import Adaptation, Method
from dphyper.bench.tasks import Draw
from dphyper.core.errors import PrivacyError
from dphyper.core.files import whole_file, write_json
from dphyper.core.specs import Cell, content_hash
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """What an adaptation left behind.

    Attributes:
        adaptation: θ and diagnostics.
        ledger: What it cost.
        seconds: Wall time; None where a private selection ran, whose trials are a secret that times would tell.
    """

    adaptation: Adaptation
    ledger: Ledger
    seconds: float | None


def release(cell: Cell, method: Method, draw: Draw, folder: Path) -> Release:
    """Adapt the method to the draw, or read what an earlier run of the cell released.

    Args:
        cell: In its canonical form.
        method: With its public phase done.
        draw: Of the cell.
        folder: Of the cell in its store.

    Raises:
        PrivacyError: The method released something else than it declares, or more than the budget.
    """
    budget = Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))
    parameters, path = folder / "theta.safetensors", folder / "ledger.json"
    ledger = Ledger.open(path, budget)
    if parameters.exists():
        return _read(parameters, ledger, method.device)
    # A row says that an earlier attempt failed, and that is known; without one the process died unseen.
    if not (folder / "row.json").exists():
        interrupted = ledger.to_json()
        if ledger.forget_unseen():
            write_json(folder / "ledger.interrupted.json", interrupted)
    records = method.target.encode(draw.records)

    def adapt(parts: int) -> Adaptation:
        private = PrivateData(records, n=cell.n, ledger=ledger, noise=_noise(cell, method), parts=parts)
        return method.adapt(private, budget, generator(cell.seed, "adaptation"))

    begin = time.perf_counter()
    try:
        try:
            adaptation = adapt(parts=1)
        except (MemoryError, torch.OutOfMemoryError):
            if ledger.has_selection:
                raise
            # Nobody has seen what was drawn, as if the process had died. What memory is asked for depends on public
            # values alone.
            print(f"cell {cell.id}: out of memory, once more with half as many records at a time", flush=True)
            ledger.forget_unseen()
            adaptation = adapt(parts=2)
        undeclared = ledger.differences(method.mechanisms(budget, method.options))
        if undeclared:
            raise PrivacyError(f"method '{cell.method}': {'; '.join(undeclared)}")
    except Exception:
        ledger.close_attempt()
        raise
    seconds = None if ledger.has_selection else time.perf_counter() - begin
    if not ledger.charges:
        write_json(path, ledger.to_json())
    beside = {"seconds": json.dumps(seconds), "diagnostics": json.dumps(dict(adaptation.diagnostics))}
    with whole_file(parameters) as temporary:
        save_file({"theta": adaptation.theta.contiguous()}, temporary, metadata=beside)
    return Release(adaptation=adaptation, ledger=ledger, seconds=seconds)


def _read(parameters: Path, ledger: Ledger, device: torch.device) -> Release:
    with safe_open(parameters, framework="pt", device=str(device)) as file:
        theta, beside = file.get_tensor("theta"), file.metadata() or {}
    diagnostics = json.loads(beside.get("diagnostics", "{}"))
    seconds = json.loads(beside.get("seconds", "null"))
    return Release(adaptation=Adaptation(theta=theta, diagnostics=diagnostics), ledger=ledger, seconds=seconds)


def generator(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose of one seed; never the source of privacy noise."""
    return torch.Generator().manual_seed(int(content_hash([seed, purpose])[:15], 16))


def _noise(cell: Cell, method: Method) -> NoiseSource:
    """The source of a cell's privacy noise and of what private losses draw; a ceiling's is the seed's."""
    if cell.reproducible_noise or not method.private:
        return NoiseSource.reproducible(cell.seed + 1_000_000 * cell.noise_draw)
    return NoiseSource.os()
