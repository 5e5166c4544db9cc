// index_usearch.js - what index.py measures of usearch, through its npm package: node index_usearch.js FOLDER/node_modules/usearch
//
// Verbs: threads build open search drop, as in index_peers.cpp. Vectors go in and results come out in one typed array a call, and
// the package runs a call's queries on its own threads: what JavaScript adds is once a batch. Its `expansion_search` is fixed
// when an index is made, so `open` loads the saved index anew for each value.
const fs = require("fs"), readline = require("readline")
const { Index } = require(process.argv[2])

const table = new Map()
let threads = 1

function floats(path, count) { // the file's first floats; in pieces, as one read is below 2 GiB
  const out = new Float32Array(count), bytes = new Uint8Array(out.buffer), file = fs.openSync(path, "r")
  for (let at = 0; at < bytes.length;) {
    const n = fs.readSync(file, bytes, at, Math.min(bytes.length - at, 1 << 28), at)
    if (n === 0) throw new Error(`${path}: too short`)
    at += n
  }
  fs.closeSync(file)
  return out
}

function memory() { // resident memory that no file stands behind
  return 1024 * Number(/RssAnon:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1])
}

const seconds = start => Number(process.hrtime.bigint() - start) / 1e9
const make = (a, ef) => new Index({
  dimensions: Number(a.d), metric: a.metric === "l2" ? "l2sq" : "ip", quantization: a.form,
  connectivity: 16, expansion_add: 200, expansion_search: ef, multi: false,
})

const verbs = {
  threads(a) { threads = Number(a.n); return {} },
  build(a) {
    const n = Number(a.n), d = Number(a.d), base = floats(a.base, n * d), keys = new BigUint64Array(n)
    for (let i = 0; i < n; i++) keys[i] = BigInt(i)
    const index = make(a, 64), before = memory(), start = process.hrtime.bigint()
    index.add(keys, base, threads)
    const took = seconds(start), bytes = memory() - before
    index.save(a.save)
    return { seconds: took, bytes }
  },
  open(a) {
    const index = make(a, Number(a.ef))
    index.load(a.load)
    table.set(a.name, { index, d: Number(a.d) })
    return {}
  },
  search(a) {
    const { index, d } = table.get(a.name), k = Number(a.k), m = Number(a.m), q = floats(a.q, m * d)
    const start = process.hrtime.bigint()
    const found = index.search(q, k, threads)
    const took = seconds(start)
    if (a.out) {
      const out = new Uint32Array(m * k).fill(0xffffffff)
      for (let i = 0; i < m; i++)
        for (let j = 0; j < Number(found.counts[i]); j++) out[i * k + j] = Number(found.keys[i * k + j])
      fs.writeFileSync(a.out, out)
    }
    return { seconds: took }
  },
  drop(a) {
    table.delete(a.name)
    if (global.gc) global.gc()
    return {}
  },
}

readline.createInterface({ input: process.stdin }).on("line", line => {
  const [verb, ...words] = line.trim().split(" ")
  const a = Object.fromEntries(words.map(w => [w.slice(0, w.indexOf("=")), w.slice(w.indexOf("=") + 1)]))
  let said
  try { said = verbs[verb](a) } catch (e) { said = { error: String(e.message) } }
  process.stdout.write(JSON.stringify(said) + "\n")
})
