"""One adaptation of a cell, under its ledger, and what it leaves behind.

θ, the diagnostics and the seconds of the adaptation are written in one file with a hash of θ, so that a cell which is
resumed after its release goes on from the same numbers instead of drawing its noise again. The ledger stands beside it;
without the ledger, or with one that does not tell of the method's releases, θ is not used. A run that raises keeps what
it had released charged; one that was killed before anybody saw its release does not. One that runs out of memory starts
over once with half as many records at a time, which changes no law of what is released. θ and diagnostics are finite.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dphyper.bench.method import Adaptation, Method
from dphyper.bench.tasks import Draw
from dphyper.core.errors import PrivacyError
from dphyper.core.files import DamagedFileError, whole_file, write_json
from dphyper.core.finite import require_finite
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
        DamagedFileError: What an earlier run left is not whole.
        FloatingPointError: θ or a diagnostic is not finite.
    """
    budget = Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))
    parameters, path = folder / "theta.safetensors", folder / "ledger.json"
    if parameters.exists() and not path.exists():
        raise DamagedFileError(
            f"'{parameters}' has no ledger beside it, so that nothing can be claimed: {_way_out(folder)}"
        )
    try:
        ledger = Ledger.open(path, budget)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}: bring it back from a copy, or {_way_out(folder)}") from error
    if parameters.exists():
        _require_declared(cell, method, ledger, budget)
        return _read(parameters, ledger, method)
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
        _require_declared(cell, method, ledger, budget)
        _require_finite(adaptation)
    except Exception:
        ledger.close_attempt()
        raise
    seconds = None if ledger.has_selection else time.perf_counter() - begin
    if not ledger.charges:
        write_json(path, ledger.to_json())
    beside = {
        "seconds": json.dumps(seconds),
        "diagnostics": json.dumps(dict(adaptation.diagnostics)),
        "digest": _digest(adaptation.theta),
        "layout": method.target.layout,
    }
    with whole_file(parameters) as temporary:
        save_file({"theta": adaptation.theta.contiguous()}, temporary, metadata=beside)
    return Release(adaptation=adaptation, ledger=ledger, seconds=seconds)


def _read(parameters: Path, ledger: Ledger, method: Method) -> Release:
    try:
        with safe_open(parameters, framework="pt", device=str(method.device)) as file:
            theta, beside = file.get_tensor("theta"), file.metadata() or {}
        if beside.get("digest", digest := _digest(theta)) != digest:
            raise ValueError("its numbers are not those that were written")
        if beside.get("layout", own := method.target.layout) != own:
            raise ValueError("it was made for another rank, other layers or another seed of the LoRA")
        diagnostics = json.loads(beside.get("diagnostics", "{}"))
        seconds = json.loads(beside.get("seconds", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedFileError(
            f"'{parameters}' is damaged ({error}): bring it back from a copy, or {_way_out(parameters.parent)}"
        ) from error
    adaptation = Adaptation(theta=theta, diagnostics=diagnostics)
    _require_finite(adaptation)
    return Release(adaptation=adaptation, ledger=ledger, seconds=seconds)


def _way_out(folder: Path) -> str:
    return f"give the cell up with  dphyper reset {folder.name} --store {folder.parents[1]}"


def _require_declared(cell: Cell, method: Method, ledger: Ledger, budget: Budget) -> None:
    differences = ledger.differences(method.mechanisms(budget, method.options))
    if differences:
        raise PrivacyError(f"method '{cell.method}': {'; '.join(differences)}")


def _require_finite(adaptation: Adaptation) -> None:
    require_finite("θ of the adaptation", adaptation.theta)
    for name, value in adaptation.diagnostics.items():
        require_finite(f"diagnostic {name}", value)


def _digest(theta: Tensor) -> str:
    return hashlib.sha256(theta.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def generator(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose of one seed; never the source of privacy noise."""
    return torch.Generator().manual_seed(int(content_hash([seed, purpose])[:15], 16))


def _noise(cell: Cell, method: Method) -> NoiseSource:
    """The source of a cell's privacy noise and of what private losses draw; a ceiling's is the seed's."""
    if cell.reproducible_noise or not method.private:
        return NoiseSource.reproducible(cell.seed + 1_000_000 * cell.noise_draw)
    return NoiseSource.os()
