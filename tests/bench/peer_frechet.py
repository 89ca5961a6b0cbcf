"""The Frechet distance of two statistics files by SciPy's sqrtm, as the published tools compute it. Prints seconds and distance."""
import sys
import time

import numpy as np
import scipy.linalg

a, b = (np.load(path) for path in sys.argv[1:3])
mu1, s1, mu2, s2 = a["mu"], a["sigma"], b["mu"], b["sigma"]
begin = time.perf_counter()
root = scipy.linalg.sqrtm(s1.dot(s2))
diff = mu1 - mu2
distance = diff.dot(diff) + np.trace(s1) + np.trace(s2) - 2 * np.trace(np.real(root))
print(time.perf_counter() - begin, repr(float(distance)))
