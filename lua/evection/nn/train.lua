-- train.lua - the loop: batches, steps, validation, the best model so far, checkpoints.
--
-- Where a training stands is the number of its step; batches, dropout and schedules are functions of it. So a checkpoint (the
-- parameters, the optimiser's moments, and a page of text) goes on to the same bits as a training that nobody interrupted.

local native = require "evection.native"
local object = require "evection.nn.object"
local optimisers = require "evection.nn.optimisers"
local schedules = require "evection.nn.schedules"

local SHOW_S = 0.1

local Training = {}
Training.__index = Training

local function check(opts)
  if type(opts) ~= "table" then error("train { data =, net =, batches =, loss =, model = } wants a table", 3) end
  for _, name in ipairs { "data", "net", "batches", "loss" } do
    if opts[name] == nil then error(("train: '%s' is missing"):format(name), 3) end
  end
  if type(opts.model) ~= "function" then error("train: model is a function that makes one, such as function() return data:vectors { … } end", 3) end
  local known = { data = 1, net = 1, batches = 1, loss = 1, model = 1, optimiser = 1, schedule = 1, epochs = 1, held = 1, known = 1, metric = 1, patience = 1,
    validate_every = 1, held_loss = 1, scheme = 1 }
  for name in pairs(opts) do
    if not known[name] then error(("train has no option '%s'"):format(tostring(name)), 3) end
  end
end

local function new(opts)
  check(opts)
  local self = setmetatable({}, Training)
  local b, scheme = opts.batches, opts.scheme or {}
  self.data, self.batches, self.make = opts.data, b, opts.model
  self.held, self.known = opts.held, opts.known
  local word, cutoff = tostring(opts.metric or "ndcg@20"):match "^(%l+)@(%d+)$"
  if word ~= "ndcg" and word ~= "recall" then error(("train: metric '%s' is none of ndcg@K, recall@K"):format(tostring(opts.metric)), 3) end
  self.metric, self.cutoff = word, tonumber(cutoff)
  if self.held and not self.known then error("train: held wants known: what those users are known to have", 3) end
  if self.held and opts.held_loss then error("train: held or held_loss, not both", 3) end
  if opts.held_loss and b:held() > 0 then
    self.held_loss, self.watch = opts.held_loss, opts.net:plan { outputs = { opts.held_loss } }
  end
  self.validates = self.held ~= nil or self.watch ~= nil
  self.epochs = object.number(opts.epochs or 20, 1, 1e6, "train: epochs", 4)
  self.patience = object.number(opts.patience or 5, 1, 1e6, "train: patience", 4)
  self.every = object.number(opts.validate_every or 1, 1, 1e6, "train: validate_every", 4)
  local optimiser = opts.optimiser or scheme.optimiser or optimisers.adam()
  if type(optimiser) ~= "table" or type(optimiser.rate) ~= "number" then error("train: the optimiser is none of nn.sgd, momentum, adagrad, adam, adamw", 3) end
  self.rate, self.schedule = optimiser.rate, opts.schedule or scheme.schedule or schedules.constant()
  self.plan = opts.net:plan { loss = opts.loss }
  self.optimiser = self.plan:optimiser(optimiser.options)
  self.per_epoch = object.number(b:per_epoch(), 1, 2 ^ 40, "train: batches:per_epoch()", 4)
  self.steps = self.epochs * self.per_epoch
  self.path, self.checkpoint_s = native.data_checkpoint(opts.data)
  self.report = native.progress()
  -- What a checkpoint holds. closed: epochs whose end has been seen to; bad: validations since the best.
  self.at = { step = 0, closed = 0, loss = 0, rows = 0, bad = 0 }
  self.did = { steps = 0, rows = 0, seconds = 0 } -- by this process
  self.started, self.shown, self.saved = native.now(), 0, native.now()
  return self
end

-- ---- What is shown -------------------------------------------------------------------------------------------
function Training:show(event, note)
  if not self.report then return end
  local at = self.at
  local epoch, did = math.floor(math.max(0, at.step - 1) / self.per_epoch) + 1, self.did
  self.report(("epoch %d/%d"):format(epoch, self.epochs), at.step, self.steps, at.rows > 0 and at.loss / at.rows or nil, {
    event = event, note = note, metric = self.watch and "held loss" or ("%s@%d"):format(self.metric, self.cutoff),
    value = self.validates and at.value or nil, best = at.best,
    is_best = at.best_epoch == at.closed,
    rate = did.seconds > 0 and did.rows / did.seconds or nil,
    left = did.steps > 0 and (self.steps - at.step) * (native.now() - self.started) / did.steps or nil, -- validations included
  })
  self.shown = native.now()
end

-- ---- Checkpoints ---------------------------------------------------------------------------------------------
-- PATH is text that names the other files: PATH.STEP.state, PATH.EPOCH.best. They are there before it says so.
local function remove(path) if path then native.remove(path) end end

function Training:own_files()
  if not self.path then return false end
  self.lock = self.lock or native.lock(self.path .. ".lock") -- another process may be at the same fit
  if not self.lock then self.path = nil end
  return self.lock ~= nil
end

function Training:write()
  if not self:own_files() then return false end
  local at, path = self.at, self.path
  local page = { version = native.version, steps = self.steps, per_epoch = self.per_epoch, at = at, state = ("%s.%d.state"):format(path, at.step) }
  if at.best_epoch then page.best = ("%s.%d.best"):format(path, at.best_epoch) end
  native.optimiser_save(self.optimiser, page.state)
  if page.best and page.best ~= (self.page and self.page.best) then native.link(native.model_path(self.best), page.best) end
  native.write_file(path, native.json_encode(page))
  local old = self.page or {}
  if old.state ~= page.state then remove(old.state) end
  if old.best ~= page.best then remove(old.best) end
  self.page, self.saved = page, native.now()
  return true
end

-- A checkpoint that cannot be written is told of, and none is tried after it: the training itself is well.
function Training:save()
  local ok, kept = pcall(self.write, self)
  if ok then return kept end
  self:show("note", ("no checkpoint: %s"):format(tostring(kept)))
  self.path = nil
  return false
end

-- Goes on from a checkpoint that fits; whatever is wrong with it, the training starts at its beginning.
function Training:resume()
  if not self.path or not native.exists(self.path) or not self:own_files() then return end
  local ok, page = pcall(function() return native.json_decode(native.read_file(self.path)) end)
  ok = ok and type(page) == "table" and page.version == native.version and page.steps == self.steps and page.per_epoch == self.per_epoch
  if ok and page.best then ok, self.best = pcall(native.data_adopt, self.data, page.best) end
  if ok then ok = pcall(native.optimiser_load, self.optimiser, page.state) end
  if not ok then
    self.best = nil
    return
  end
  self.page, self.at = page, page.at
  self:show("note", ("going on from a checkpoint in epoch %d"):format(math.floor(page.at.step / self.per_epoch) + 1))
end

-- An interruption from outside: what was reached is kept, and said to be.
function Training:interrupted()
  if self.path and self:save() then
    local epoch = math.floor(self.at.step / self.per_epoch) + 1
    self:show("note", ("interrupted in epoch %d; a checkpoint is kept: the same command goes on from there"):format(epoch))
  end
  native.raise("failed", "interrupted")
end

-- ---- The loop ------------------------------------------------------------------------------------------------
function Training:step()
  local at, started = self.at, native.now()
  local rows = self.batches:fill(at.step)
  local ok, loss = pcall(self.plan.run, self.plan, at.step, true)
  if not ok then
    if native.interrupted() then self:interrupted() end
    error(loss, 0)
  end
  local share = self.schedule(at.step, self.steps)
  if type(share) ~= "number" then error(("train: the schedule gave a %s at step %d"):format(type(share), at.step), 0) end
  self.optimiser:step(self.rate * share)
  at.step, at.loss, at.rows = at.step + 1, at.loss + loss * rows, at.rows + rows
  local now = native.now()
  local did = self.did
  did.steps, did.rows, did.seconds = did.steps + 1, did.rows + rows, did.seconds + now - started
  if now - self.shown >= SHOW_S then self:show "step" end
  if self.path and now - self.saved >= self.checkpoint_s then self:save() end
end

-- The mean of held_loss over the rows that are held.
function Training:loss_of_held()
  local b, sum, rows = self.batches, 0, 0
  while rows < b:held() do
    local n = b:fill_held(rows)
    self.watch:run(self.at.step, false)
    sum, rows = sum + n * self.watch:value(self.held_loss)[1], rows + n
  end
  return sum / rows
end

-- A model of the parameters as they are; the better one of it and the best so far stays.
function Training:validate()
  local at = self.at
  local model = self.make()
  if type(model) ~= "userdata" then error("train: model() returned no model", 0) end
  local value = 0
  if self.held then value = self.held:measure(model, self.known, self.cutoff)[self.metric]
  elseif self.watch then value = self:loss_of_held() end
  if type(value) ~= "number" or value ~= value then error(("train: the validation gave %s"):format(tostring(value)), 0) end
  at.value = value
  local better = not self.validates or not at.best or value > at.best
  if self.watch and at.best then better = value < at.best end
  if better then
    if self.best then native.model_discard(self.data, self.best) end
    self.best, at.best, at.best_epoch, at.bad = model, value, at.step / self.per_epoch, 0
  else
    native.model_discard(self.data, model)
    at.bad = at.bad + 1
  end
end

-- The end of an epoch. → true: it was the last
function Training:close_epoch()
  local at = self.at
  local epoch = at.step / self.per_epoch
  local last = epoch >= self.epochs
  if last or (self.validates and epoch % self.every == 0) then
    local ok, message = pcall(self.validate, self)
    if not ok then
      if native.interrupted() then self:interrupted() end
      error(message, 0)
    end
  end
  at.closed = epoch
  self:show "epoch"
  at.loss, at.rows = 0, 0
  return last or (self.validates and at.bad >= self.patience)
end

-- train { data, net, batches, loss, model = function() … end, scheme = {}, optimiser = adam(), schedule = constant(), epochs = 20, held = nil,
-- known = nil, metric = "ndcg@20", held_loss = nil, patience = 5, validate_every = 1 } → model
-- held: what every validate_every epochs is measured on; the best model is returned, and `patience` validations without a
-- better one end the training. held_loss, of batches of rows some of which are held: the scalar whose mean over those is to be
-- least instead. Without either, or when no row is held, the last model is returned.
-- scheme: the optimiser and the schedule, where they are not given beside it.
local function train(opts)
  local self = new(opts)
  self:resume()
  local at = self.at
  while true do
    if at.step % self.per_epoch == 0 and at.step > 0 and at.closed < at.step / self.per_epoch and self:close_epoch() then break end
    if native.interrupted() then self:interrupted() end
    self:step()
  end
  return self.best
end

return { train = train }
