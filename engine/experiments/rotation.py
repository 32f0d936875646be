"""Random rotations and their fractional powers, for dissecting a layer in a basis that is not its own.

Q^alpha turns each plane of Q by alpha times its angle: expm(alpha logm(Q)) with the real logarithm, without either.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def random_rotation(size: int, seed: int) -> Floats:
    """(size, size): a rotation drawn uniformly (by Haar's measure) from those with determinant +1.

    QR of a Gaussian matrix, the signs fixed so that R has a positive diagonal: without that it is not uniform.
    """
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return np.asarray(q, np.float64)


class Rotation:
    """A rotation Q (n, n), orthogonal with determinant +1, with all its powers between the identity and itself."""

    def __init__(self, matrix: Floats) -> None:
        self._matrix = matrix
        values, vectors = np.linalg.eig(matrix)
        # A real matrix's eigenvectors come in conjugate pairs, v = a + bi: Q turns the plane of a and b. Eigenvalues
        # without a partner are 1, what stays, and -1, of which a rotation has an even number: half turns.
        upper = np.flatnonzero(values.imag > 0)
        upper = upper[np.argsort(values[upper].real)]
        flipped = np.flatnonzero((values.imag == 0) & (values.real < 0))
        stays = np.flatnonzero((values.imag == 0) & (values.real > 0))
        planes = np.stack([vectors[:, upper].real, vectors[:, upper].imag], 2).reshape(len(matrix), -1)
        # Orthogonal planes up to rounding, unless angles coincide: then any orthogonal ones of their span will do.
        basis = np.linalg.qr(np.hstack([vectors[:, flipped].real, planes, vectors[:, stays].real]))[0]
        turning = len(flipped) + planes.shape[1]
        self._a, self._b, self._fixed = basis[:, 0:turning:2], basis[:, 1:turning:2], basis[:, turning:]
        ma, mb = matrix @ self._a, matrix @ self._b
        cosine = (self._a * ma).sum(0) + (self._b * mb).sum(0)
        sine = (self._b * ma).sum(0) - (self._a * mb).sum(0)
        self._angle = np.arctan2(sine, cosine)

    def power(self, alpha: float) -> Floats:
        """(n, n) float64: Q^alpha, ``alpha`` in [0, 1]; of 0 the identity and of 1 Q itself, to the last bit."""
        if alpha == 0:
            return np.eye(len(self._matrix))
        return self._matrix.copy() if alpha == 1 else self.by_angles(alpha)

    def by_angles(self, alpha: float) -> Floats:
        """The same for any ``alpha``, from the planes and angles alone."""
        a, b, f = self._a, self._b, self._fixed
        cosine, sine = np.cos(alpha * self._angle), np.sin(alpha * self._angle)
        turned_a, turned_b = a * cosine + b * sine, b * cosine - a * sine
        return np.asarray(turned_a @ a.T + turned_b @ b.T + f @ f.T, np.float64)
