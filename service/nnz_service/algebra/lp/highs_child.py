"""The process that runs HiGHS: reads a program, does a task, writes the answer, ends.

HiGHS can neither be stopped in the middle and continued, nor be trusted never to crash
or hang; here it may. Started with a task, a folder that holds ``given.npz``, bytes of
memory, seconds of CPU time and the number of the process that waits for it; writes
``answer.npz`` there. A file instead of a pipe: programs are large, and a killed process
leaves half a file, which has no directory at its end and cannot be mistaken. Tasks are
``solve``; ``presolve``, which answers with the program that is left; and ``postsolve``,
which presolves once more, for what it did cannot be written down, and takes a solution
of what is left back to the program.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from pathlib import Path
from typing import Any

import highspy
import numpy as np

from nnz_service.confinement import confine

#: What HiGHS allows for its own tolerances, and its default.
_FINEST, _USUAL = 1e-10, 1e-7

#: What the program that is left consists of.
_LEFT = ("at_indptr", "at_indices", "at_data", "c", "lc", "uc", "lv", "uv", "offset")


def main(task: str, folder: Path, memory: int, seconds: int, parent: int) -> None:
    """Do a task with what lies in the folder, unless nobody waits for it any more."""
    confine(memory or None, seconds + 1)
    # Below the hard limit, at which the signal could be anybody's.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(seconds, hard), hard))
    if os.getppid() != parent:  # it ended before `confine`: its end was not told
        sys.exit("nobody waits for an answer")
    with np.load(folder / "given.npz", allow_pickle=False) as file:
        given = {name: file[name] for name in file.files}
    answer = {"solve": solve, "presolve": presolve, "postsolve": postsolve}[task](given)
    half = folder / "half.npz"
    with half.open("wb") as out:
        np.savez(out, **answer)
    half.rename(folder / "answer.npz")


def solve(given: dict[str, Any]) -> dict[str, Any]:
    """Return status, iterations, vectors and, where there is one, a ray."""
    highs: Any = _new()
    _set_options(highs, given)
    if highs.passModel(_model(given)) == highspy.HighsStatus.kError:
        return {"status": np.array("refused")}
    highs.run()
    if _status(highs) == "kUnboundedOrInfeasible":
        highs.setOptionValue("presolve", "off")
        highs.run()
    _refuse_no_memory(highs)
    answer = {"status": np.array(_status(highs)), "iterations": _iterations(highs)}
    answer |= _vectors(highs)
    return answer | _ray(highs, str(answer["status"]))


def presolve(given: dict[str, Any]) -> dict[str, Any]:
    """Return a status and the program that is left, with its digest."""
    highs, status = _presolved(given)
    left = _left(highs.getPresolvedLp())
    return {"status": np.array(status), "digest": np.array(_digest(left))} | left


def postsolve(given: dict[str, Any]) -> dict[str, Any]:
    """Return vectors of the program, from x, y and r of what is left of it.

    One row a tolerance: by it postsolve tells which bounds hold, and what is not exact
    may come back far better by one than by another.
    """
    highs, _ = _presolved(given)
    if _digest(_left(highs.getPresolvedLp())) != str(given["digest"]):
        return {"status": np.array("differs")}
    solution = highspy.HighsSolution()
    solution.col_value, solution.row_dual = given["x"], given["y"]
    solution.col_dual = given["r"]
    solution.value_valid = solution.dual_valid = True
    found = []
    for tolerance in given["tolerances"].tolist():
        for side in ("primal", "dual"):
            highs.setOptionValue(f"{side}_feasibility_tolerance", tolerance)
        # Without a basis no simplex runs afterwards: it is the same solution.
        if highs.postsolve(solution) == highspy.HighsStatus.kError:
            return {"status": np.array("refused")}
        found.append(_vectors(highs))
    stacked = {name: np.stack([each[name] for each in found]) for name in found[0]}
    return {"status": np.array("restored")} | stacked


def _presolved(given: dict[str, Any]) -> tuple[Any, str]:
    highs: Any = _new()
    options = {"output_flag": False, "parallel": "off", "threads": 1}
    options |= {"presolve": "on", "infinite_bound": 1e20, "small_matrix_value": 1e-12}
    for name, value in options.items():
        highs.setOptionValue(name, value)
    if highs.passModel(_model(given)) == highspy.HighsStatus.kError:
        return highs, "refused"
    highs.presolve()
    _refuse_no_memory(highs)
    return highs, str(highs.getModelPresolveStatus().name)


def _left(lp: Any) -> dict[str, Any]:
    """Return a program by columns, as HiGHS keeps what it presolved."""
    if lp.a_matrix_.format_ != highspy.MatrixFormat.kColwise:
        raise RuntimeError("the presolved program is not stored by columns")
    # Of a program that is empty now HiGHS leaves entries behind.
    start = np.array(lp.a_matrix_.start_, np.int32)[: lp.num_col_ + 1]
    entries = slice(0, int(start[-1]) if lp.num_col_ else 0)
    found = (
        start if lp.num_col_ else np.zeros(1, np.int32),
        np.array(lp.a_matrix_.index_, np.int32)[entries],
        *(np.array(x, np.float64) for x in (
            lp.a_matrix_.value_[entries], lp.col_cost_, lp.row_lower_, lp.row_upper_,
            lp.col_lower_, lp.col_upper_, lp.offset_,
        )),
    )  # fmt: skip
    return dict(zip(_LEFT, found, strict=True))


def _digest(left: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in _LEFT:
        digest.update(left[name].tobytes())
    return digest.hexdigest()


def _new() -> Any:
    make: Any = highspy.Highs  # its constructor has no types
    return make()


def _set_options(highs: Any, given: dict[str, Any]) -> None:
    tolerance = min(max(float(given["tolerance"]), _FINEST), _USUAL)
    options = {
        "output_flag": False,
        "parallel": "off",
        "threads": 1,
        "primal_feasibility_tolerance": tolerance,
        "dual_feasibility_tolerance": tolerance,
        "infinite_bound": 1e20,
        # The least that it allows: entries of any size are there for a reason.
        "small_matrix_value": 1e-12,
        "time_limit": float(given["time_limit"]),
    }
    if (limit := int(given["max_iterations"])) > 0:
        options["simplex_iteration_limit"] = min(limit, 2**31 - 1)
        options["ipm_iteration_limit"] = min(limit, 2**31 - 1)
    for name, value in options.items():
        highs.setOptionValue(name, value)


def _model(given: dict[str, Any]) -> Any:
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = int(given["lc"].size), int(given["c"].size)
    lp.col_cost_ = given["c"]
    lp.col_lower_, lp.col_upper_ = given["lv"], given["uv"]
    lp.row_lower_, lp.row_upper_ = given["lc"], given["uc"]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = given["indptr"]
    lp.a_matrix_.index_ = given["indices"]
    lp.a_matrix_.value_ = given["data"]
    return lp


def _status(highs: Any) -> str:
    return str(highs.getModelStatus().name)


def _refuse_no_memory(highs: Any) -> None:
    """HiGHS catches some of its failures to allocate; here they end the process."""
    if _status(highs) == "kMemoryLimit":
        raise MemoryError


def _iterations(highs: Any) -> Any:
    info = highs.getInfo()
    return np.array(
        max(info.simplex_iteration_count, 0)
        + max(info.ipm_iteration_count, 0)
        + max(info.crossover_iteration_count, 0)
    )


def _vectors(highs: Any) -> dict[str, Any]:
    solution = highs.getSolution()
    return {
        "x": np.array(solution.col_value, np.float64),
        "y": np.array(solution.row_dual, np.float64),
        "r": np.array(solution.col_dual, np.float64),
    }


def _ray(highs: Any, status: str) -> dict[str, Any]:
    """Return a certificate; HiGHS solves again without presolve to have one."""
    ask = {"kInfeasible": highs.getDualRay, "kUnbounded": highs.getPrimalRay}
    if status not in ask:
        return {}
    found = ask[status]()
    return {"ray": np.array(found[2], np.float64)} if found[1] else {}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
