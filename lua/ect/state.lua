-- state: the table s that design functions see. One table for all calls; C writes its fields before each call.
local state = {}
state.fields = { step = 0, nimg = 0, batch = 1, iters = 1, progress = 0.0, stage = 0, N = 0.0, sigma_data = 0.5 }
state.s = setmetatable({}, {
    __index = setmetatable(state.fields, {
        __index = function(_, k)
            error(("s has no field '%s': step, nimg, batch, iters, progress, stage, N, sigma_data"):format(tostring(k)), 2)
        end,
    }),
    __newindex = function() error("s is read-only", 2) end,
    __metatable = "read-only",
})
return state
