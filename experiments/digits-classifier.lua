-- Question: a feature space that knows digits, for fd_digits and classes_digits: as good as it has to be, as small as can be.
-- Protocol: a convolutional network (32, 64 and 64 channels, 56 k parameters) learns the ten classes of all 1797 UCI digits; there is no test
-- set, because it is a measuring instrument for sets that resemble these, not a result. Its EMA is what is shipped:
--   ect run experiments/digits-classifier.lua
--   ect export RUN experiments/data/digits-classifier.safetensors --weights std1
-- Another file is another metric: the file's hash is part of the evaluator's identity.
local ect = require "ect"

ect.run "digits-classifier" {
    {
        target = "classify", data = "digits", sigma_data = 0, net = { "convnet", width = 32, mult = { 1, 2, 2 } }, ["net.cond"] = true,
        noise = ect.noise.lognormal {}, mapping = ect.mapping.zero {}, weight = ect.weight.uniform {}, dropout = 0.2,
        optim = "adam", lr = ect.lr.cosine { ref = 2e-3 }, batch = 128, iters = 600, ema = ect.ema.power { std = 0.1 },
    },
    replicates = 1,
}
