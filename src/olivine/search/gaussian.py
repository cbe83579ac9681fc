"""Asking by a Gaussian process: for searches in which every evaluation is dear and there are a few dozen of them.

The values of points that differ little in numbers, or in one choice, are taken for alike; how alike, dimension by
dimension, is learned from the values so far. The next point is the one that promises most: expected improvement (Jones
et al., 1998: https://doi.org/10.1023/A:1008306431147), times the chance that it meets the goals (Gardner et al., 2014:
https://proceedings.mlr.press/v32/gardner14.html). A choice with n values in order is n places on a line; one without
order is as far from every other. Spaces of models are small, so every point that is left is looked at, and none comes
twice.

The lengths over which values change, and the share of noise in them, are drawn from a wide prior and weighed by how
likely they make the values so far (importance sampling), which is steadier on ten values than the likeliest alone. The
first points are a balanced design: each takes the choices that were taken least. With several objectives every second
point goes by the first, and those between by a random weighing of all (ParEGO, Knowles, 2006:
https://doi.org/10.1109/TEVC.2005.851274). A point that is asked for and not yet answered counts as one of medium value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.config.schema import SearchStrategy
from olivine.errors import UnavailableError
from olivine.search.asking import Asker
from olivine.search.dimension import Dimension
from olivine.search.pareto import Objective
from olivine.search.space import Point, Space
from olivine.store import digest_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LOOKED_AT = 2000
"""Points that are looked at for the next one: all of a smaller space, so many drawn ones of a larger."""
NEAR = 5
"""In a larger space also the neighbours of so many of the best."""
LENGTHS = (0.25, 4.0)
"""Shortest and longest length over which values change, where 1 is the whole of a dimension."""
NOISE = (0.01, 0.5)
"""Least and most share of the values' variance that is noise."""
DRAWS = 160
"""Pairs of lengths and noise that are weighed."""
KEPT = 8
"""Those with the largest weights are used."""


class Gaussian(Asker):
    """See the module.

    Raises:
        UnavailableError: numpy is not installed.
    """

    def __init__(self, space: Space, strategy: SearchStrategy, objectives: Sequence[Objective]) -> None:
        try:
            import numpy as np
        except ImportError:
            raise UnavailableError("the sampler gp needs numpy", remedy="`pip install 'olivine[search]'`") from None
        self._space = space
        self._objectives = objectives
        self._random = np.random.default_rng(strategy.seed)
        self._asked: dict[str, Point] = {}
        self._values: dict[str, list[float | None]] = {}
        self._met: dict[str, bool] = {}
        self._all: list[Point] | None = None
        if space.size is not None and space.size <= LOOKED_AT:
            self._all = list(space.points())
        self._startup = 2 + sum(len(each.choices) != 1 for each in space.dimensions if each.name not in space.fixed)

    def ask(self) -> Point | None:
        """See :meth:`Asker.ask`."""
        points = self._candidates()
        if not points:
            return None
        measured = sum(None not in values for values in self._values.values())
        chosen = self._least_tried(points) if measured < self._startup else self._most_promising(points)
        self._asked[digest_json(chosen)] = chosen
        return chosen

    def tell(self, point: Point, values: Sequence[float | None], violations: Mapping[str, float]) -> None:
        """See :meth:`Asker.tell`."""
        key = digest_json(point)
        self._asked.setdefault(key, dict(point))
        self._values[key] = list(values)
        self._met[key] = all(amount <= 0 for amount in violations.values())

    # Points ---------------------------------------------------------------------------------------------------------

    def _candidates(self) -> list[Point]:
        """Return the points that may be asked for, each once."""
        if self._all is not None:
            found = self._all
        else:
            near = [self._asked[key] for key in self._best()[:NEAR]]
            drawn = [self._drawn() for _ in range(LOOKED_AT)]
            found = [*drawn, *itertools.chain.from_iterable(self._neighbours(each) for each in near)]
        unique = {digest_json(point): point for point in found if self._space.allows(point)}
        return [point for key, point in unique.items() if key not in self._asked]

    def _drawn(self, given: Mapping[str, Any] | None = None, otherwise: str = "") -> Point:
        """Return a point that keeps what counts of ``given``, but for the dimension ``otherwise``."""
        point: Point = {}
        for each in self._space.dimensions:
            if not each.counts(point):
                continue
            kept = (given or {}).get(each.name)
            if each.name in self._space.fixed:
                point[each.name] = self._space.fixed[each.name]
            elif kept is not None and each.key != otherwise and (not each.choices or kept in each.choices):
                point[each.name] = kept
            elif each.choices:
                point[each.name] = each.choices[int(self._random.integers(len(each.choices)))]
            else:
                share = float(self._random.random())
                low, high = (math.log(each.low), math.log(each.high)) if each.log else (each.low, each.high)
                value = low + share * (high - low)
                value = math.exp(value) if each.log else value
                point[each.name] = round(value) if each.whole else value
        return point

    def _neighbours(self, point: Point) -> list[Point]:
        """Return points that differ from ``point`` in one dimension, several for each."""
        varied = [each for each in self._space.dimensions if each.counts(point)]
        return [self._drawn(point, each.key) for each in varied for _ in range(8)]

    def _least_tried(self, points: Sequence[Point]) -> Point:
        """Return a point whose choices were taken least so far, among those that are likely to meet the goals."""
        import numpy as np

        likely = np.flatnonzero(self._chances(points) >= 0.5)
        points = [points[int(place)] for place in likely] or points
        tried = list(self._asked.values())
        alike = (self._distances(points, tried) == 0).sum(axis=(0, 2))
        return points[int(self._random.choice(np.flatnonzero(alike == alike.min())))]

    # What is expected -----------------------------------------------------------------------------------------------

    def _most_promising(self, points: Sequence[Point]) -> Point:
        import numpy as np

        goals = self._goals()
        seen = [self._asked[key] for key in goals]
        values = np.array(list(goals.values()))
        met = [value for key, value in goals.items() if self._met.get(key, True)]
        spread = values.std() or 1.0
        scaled = (values - values.mean()) / spread
        best = (max(met) - values.mean()) / spread if met else scaled.min()
        promise = _improvement(self._distances(seen, seen), self._distances(points, seen), scaled, best, self._random)
        promise *= self._chances(points)
        return points[int(self._random.choice(np.flatnonzero(promise >= promise.max() * (1 - 1e-9))))]

    def _goals(self) -> dict[str, float]:
        """Return one number for each point that was measured or asked for, the higher the better."""
        import numpy as np

        keys = [key for key, values in self._values.items() if None not in values]
        signs = np.array([1.0 if each.higher_is_better else -1.0 for each in self._objectives])
        table = np.array([self._values[key] for key in keys], dtype=np.float64) * signs
        span = table.max(0) - table.min(0)
        shares = (table - table.min(0)) / np.where(span > 0, span, 1.0)
        if len(self._objectives) > 1 and len(keys) % 2:
            weights = self._random.dirichlet(np.ones(len(signs)))
            found = (weights * shares).min(1) + 0.05 * (weights * shares).sum(1)
        else:
            found = shares[:, 0]
        pending = [key for key in self._asked if key not in self._values]
        return dict(zip(keys, map(float, found), strict=True)) | dict.fromkeys(pending, float(np.median(found)))

    def _chances(self, points: Sequence[Point]) -> Floats:
        """Return how likely each point meets the goals: least squares on what did and what did not (Rasmussen and
        Williams, 2006, section 6.5)."""
        import numpy as np

        met = np.array([float(each) for each in self._met.values()])
        if met.size == 0 or met.all():
            return np.ones(len(points))
        seen = [self._asked[key] for key in self._met]
        mean, deviation = _predicted(
            self._distances(seen, seen),
            self._distances(points, seen),
            2 * met - 1,
            lengths=np.ones(len(self._space.dimensions)),
            noise=0.01,
        )
        return np.asarray(_normal(mean / deviation))

    def _best(self) -> list[str]:
        """Return the keys of what was measured: what meets the goals first, then by the first objective."""
        sign = 1.0 if self._objectives[0].higher_is_better else -1.0
        measured = {key: sign * first for key, (first, *_) in self._values.items() if first is not None}
        return sorted(measured, key=lambda key: (not self._met[key], -measured[key]))

    def _distances(self, points: Sequence[Point], others: Sequence[Point]) -> Floats:
        """Return how far points are from others in each dimension, from 0 to 1: ``(dimensions, points, others)``."""
        import numpy as np

        found = np.empty((len(self._space.dimensions), len(points), len(others)))
        for place, each in enumerate(self._space.dimensions):
            one = np.array([_place(each, point) for point in points])[:, None]
            other = np.array([_place(each, point) for point in others])[None, :]
            apart = (one != other) if each.choices and not each.is_ordered else np.abs(one - other)
            # Where it counts for one of two points only, they are as far apart as can be.
            found[place] = np.where((one < 0) ^ (other < 0), 1.0, apart)
        return found


def _place(dimension: Dimension, point: Point) -> float:
    """Return where a point is in a dimension, from 0 to 1 (the choice's number where they have no order); -1 where it
    does not count."""
    if not dimension.counts(point):
        return -1.0
    value, low, high = point[dimension.name], dimension.low, dimension.high
    if dimension.choices:
        index = dimension.choices.index(value)
        return index / max(1, len(dimension.choices) - 1) if dimension.is_ordered else index
    if dimension.log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return float((value - low) / ((high - low) or 1.0))


def _improvement(among: Floats, to: Floats, values: Floats, best: float, random: np.random.Generator) -> Floats:
    """Return the improvement over ``best`` that is expected of each point, over what the values leave open.

    Args:
        among: distances of what was seen, ``(dimensions, seen, seen)``.
        to: distances of the points to it, ``(dimensions, points, seen)``.
        values: of what was seen, with mean 0 and deviation 1.
    """
    import numpy as np

    lengths = np.exp(random.uniform(math.log(LENGTHS[0]), math.log(LENGTHS[1]), (DRAWS, len(among))))
    noises = np.exp(random.uniform(math.log(NOISE[0]), math.log(NOISE[1]), DRAWS))
    likelihoods = np.array([_likelihood(among, values, *each) for each in zip(lengths, noises, strict=True)])
    weights = np.exp(likelihoods - likelihoods.max())
    promise = np.zeros(to.shape[1])
    for draw in np.argsort(-likelihoods, kind="stable")[:KEPT]:
        mean, deviation = _predicted(among, to, values, lengths[draw], float(noises[draw]))
        ahead = (mean - best) / deviation
        density = np.exp(-(ahead**2) / 2) / math.sqrt(2 * math.pi)
        promise += weights[draw] * deviation * (ahead * _normal(ahead) + density)
    return promise


def _kernel(distances: Floats, lengths: Floats) -> Floats:
    import numpy as np

    return np.asarray(np.exp(-((distances / lengths[:, None, None]) ** 2).sum(0) / 2))


def _likelihood(among: Floats, values: Floats, lengths: Floats, noise: float) -> float:
    """Return the logarithm of the values' likelihood (Rasmussen and Williams, 2006, algorithm 2.1)."""
    import numpy as np

    root = np.linalg.cholesky(_kernel(among, lengths) + noise * np.eye(len(values)))
    whitened = np.linalg.solve(root, values)
    return float(-whitened @ whitened / 2 - np.log(np.diag(root)).sum())


def _predicted(among: Floats, to: Floats, values: Floats, lengths: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return mean and deviation of what would be measured at each point."""
    import numpy as np

    root = np.linalg.cholesky(_kernel(among, lengths) + noise * np.eye(len(values)))
    near = np.linalg.solve(root, _kernel(to, lengths).T)
    mean = near.T @ np.linalg.solve(root, values)
    return mean, np.sqrt(np.maximum(1 - (near**2).sum(0), 0.0) + noise)


def _normal(ahead: Floats) -> Floats:
    """Return the share of the normal distribution that is below."""
    import numpy as np

    return np.array([0.5 * (1 + math.erf(each / math.sqrt(2))) for each in ahead])
