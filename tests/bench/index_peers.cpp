/* index_peers.cpp - what index.py measures of faiss, hnswlib and bare sgemm. Built by the bench target alone.
 *
 * Verbs: threads build search single drop sgemm. An index is one of
 *   hnswlib   HierarchicalNSW over float32; one call a query, threads of our own, since it has no batches
 *   faiss     IndexHNSWFlat; batches through OpenMP
 *   faiss_sq8 IndexHNSWSQ, 8 bits, over the links of the faiss index named `graph`: trained bounds, links made of exact distances
 *   flat      IndexFlatIP
 * hnswlib is headers, so it is compiled for this machine. Debian's libfaiss.a is compiled for any x86-64, its distances without
 * vector instructions; unless FAISS_AS_PACKAGED is defined, the two that graphs and single queries spend their time in are
 * replaced here by the same loops compiled for this machine, as a build of faiss's own would have them. */
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <cblas.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/index_io.h>
#include <hnswlib/hnswlib.h>
#include <malloc.h>
#include <omp.h>

#include "index_protocol.h"

#ifndef FAISS_AS_PACKAGED
namespace faiss {
#pragma GCC push_options
#pragma GCC optimize("O3,fast-math,unroll-loops")
float fvec_L2sqr(const float *x, const float *y, size_t d) {
  float sum = 0;
  for (size_t i = 0; i < d; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sum;
}
float fvec_inner_product(const float *x, const float *y, size_t d) {
  float sum = 0;
  for (size_t i = 0; i < d; i++) sum += x[i] * y[i];
  return sum;
}
#pragma GCC pop_options
} // namespace faiss
#endif

extern "C" void openblas_set_num_threads(int n);
extern "C" char *openblas_get_corename(void);

namespace {

struct Held {
  std::unique_ptr<hnswlib::SpaceInterface<float>> space;
  std::unique_ptr<hnswlib::HierarchicalNSW<float>> hnswlib;
  std::unique_ptr<faiss::Index> faiss;
  size_t d = 0;
};
std::unordered_map<std::string, Held> table;
size_t n_threads = 1;

Held &named(const char *key) {
  auto at = table.find(text(key));
  if (at == table.end()) die("no index %s", text(key));
  return at->second;
}

template <typename F> void parallel(size_t n, F f) { /* f(i) for i < n; whoever is free takes the next */
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < n;) f(i);
  };
  for (size_t t = 1; t < n_threads; t++) threads.emplace_back(work);
  work();
  for (auto &t : threads) t.join();
}

void build() { /* or, where `load` names a file that is there, reads what was built before */
  const std::string engine = text("engine"), load = text_or("load", ""), save = text_or("save", "");
  const size_t n = number("n"), d = number("d");
  const bool l2 = strcmp(text("metric"), "l2") == 0;
  const float *base = static_cast<const float *>(map_file(text("base"), n * d * sizeof(float)));
  Held &x = table[text("name")];
  x = Held();
  x.d = d;
  malloc_trim(0);
  const double before = memory_bytes(), start = now();
  if (engine == "hnswlib") {
    if (l2) x.space.reset(new hnswlib::L2Space(d));
    else x.space.reset(new hnswlib::InnerProductSpace(d));
    if (!load.empty()) x.hnswlib.reset(new hnswlib::HierarchicalNSW<float>(x.space.get(), load, false, n));
    else {
      x.hnswlib.reset(new hnswlib::HierarchicalNSW<float>(x.space.get(), n, 16, 200, 1));
      x.hnswlib->addPoint(base, 0);
      parallel(n - 1, [&](size_t i) { x.hnswlib->addPoint(base + (i + 1) * d, i + 1); });
      if (!save.empty()) x.hnswlib->saveIndex(save);
    }
  } else if (engine == "flat") {
    x.faiss.reset(new faiss::IndexFlatIP(static_cast<faiss::Index::idx_t>(d)));
    x.faiss->add(static_cast<faiss::Index::idx_t>(n), base);
  } else if (engine == "faiss") {
    if (!load.empty()) x.faiss.reset(faiss::read_index(load.c_str()));
    else {
      auto *h = new faiss::IndexHNSWFlat(static_cast<int>(d), 16, l2 ? faiss::METRIC_L2 : faiss::METRIC_INNER_PRODUCT);
      h->hnsw.efConstruction = 200;
      x.faiss.reset(h);
      h->add(static_cast<faiss::Index::idx_t>(n), base);
      if (!save.empty()) faiss::write_index(h, save.c_str());
    }
  } else if (engine == "faiss_sq8") {
    auto *h = new faiss::IndexHNSWSQ(static_cast<int>(d), faiss::ScalarQuantizer::QT_8bit, 16, l2 ? faiss::METRIC_L2 : faiss::METRIC_INNER_PRODUCT);
    x.faiss.reset(h);
    auto *graph = dynamic_cast<faiss::IndexHNSW *>(named("graph").faiss.get());
    if (graph == nullptr) die("%s is no graph", text("graph"));
    h->train(static_cast<faiss::Index::idx_t>(n), base);
    h->storage->add(static_cast<faiss::Index::idx_t>(n), base);
    h->hnsw = graph->hnsw;
    h->ntotal = h->storage->ntotal;
  } else die("no engine %s", engine.c_str());
  const double seconds = now() - start;
  malloc_trim(0);
  answer("{\"seconds\": %.6f, \"bytes\": %.0f}", seconds, memory_bytes() - before);
  munmap(const_cast<float *>(base), n * d * sizeof(float));
}

void search_rows(Held &x, const float *q, size_t m, size_t k, uint32_t *out, const faiss::IDSelector *allowed) {
  if (x.hnswlib) {
    parallel(m, [&](size_t i) {
      auto found = x.hnswlib->searchKnn(q + i * x.d, k);
      for (size_t j = found.size(); j < k; j++) out[i * k + j] = UINT32_MAX;
      for (size_t j = found.size(); j-- > 0; found.pop()) out[i * k + j] = static_cast<uint32_t>(found.top().second);
    });
    return;
  }
  std::vector<faiss::Index::idx_t> ids(m * k);
  std::vector<float> scores(m * k);
  faiss::SearchParametersHNSW p;
  const auto *graph = dynamic_cast<faiss::IndexHNSW *>(x.faiss.get());
  if (graph != nullptr) p.efSearch = graph->hnsw.efSearch;
  p.sel = const_cast<faiss::IDSelector *>(allowed);
  x.faiss->search(static_cast<faiss::Index::idx_t>(m), q, static_cast<faiss::Index::idx_t>(k), scores.data(), ids.data(), allowed ? &p : nullptr);
  for (size_t i = 0; i < m * k; i++) out[i] = ids[i] < 0 ? UINT32_MAX : static_cast<uint32_t>(ids[i]);
}

void search(bool each) { /* all queries in one call; or each in a call of its own */
  Held &x = named("name");
  const size_t m = number("m"), k = number("k"), n = x.hnswlib ? 0 : static_cast<size_t>(x.faiss->ntotal);
  const float *q = static_cast<const float *>(map_file(text("q"), m * x.d * sizeof(float)));
  if (text_or("ef", nullptr) != nullptr) {
    if (x.hnswlib) x.hnswlib->setEf(number("ef"));
    else if (auto *graph = dynamic_cast<faiss::IndexHNSW *>(x.faiss.get())) graph->hnsw.efSearch = static_cast<int>(number("ef"));
  }
  std::unique_ptr<faiss::IDSelectorBitmap> allowed;
  if (text_or("allowed", nullptr) != nullptr)
    allowed.reset(new faiss::IDSelectorBitmap((n + 63) / 64 * 8, static_cast<const uint8_t *>(map_file(text("allowed"), (n + 63) / 64 * 8))));
  std::vector<uint32_t> out(m * k);
  std::vector<double> times;
  const double start = now();
  if (!each) search_rows(x, q, m, k, out.data(), allowed.get());
  else
    for (size_t i = 0; i < m; i++) {
      const double from = now();
      search_rows(x, q + i * x.d, 1, k, out.data() + i * k, allowed.get());
      times.push_back(now() - from);
    }
  const double seconds = now() - start;
  if (text_or("out", nullptr) != nullptr) write_file(text("out"), out.data(), m * k * sizeof(uint32_t));
  if (each) {
    std::sort(times.begin(), times.end());
    answer("{\"p50\": %.9f, \"p99\": %.9f}", times[m / 2], times[(m - 1) * 99 / 100]);
  } else answer("{\"seconds\": %.6f}", seconds);
  if (allowed) munmap(const_cast<uint8_t *>(allowed->bitmap), (n + 63) / 64 * 8);
  munmap(const_cast<float *>(q), m * x.d * sizeof(float));
}

void sgemm() { /* Q Xᵀ alone, in blocks of rows whose products stay in cache; nothing is made of the products */
  const size_t n = number("n"), d = number("d"), m = number("m"), block = number("block");
  const float *base = static_cast<const float *>(map_file(text("base"), n * d * sizeof(float)));
  const float *q = static_cast<const float *>(map_file(text("q"), m * d * sizeof(float)));
  std::vector<float> out(m * block);
  const double start = now();
  for (size_t first = 0; first < n; first += block) {
    const size_t width = std::min(block, n - first);
    const int rows = static_cast<int>(m), columns = static_cast<int>(width), dims = static_cast<int>(d);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, dims, 1.0f, q, dims, base + first * d, dims, 0.0f, out.data(), columns);
  }
  answer("{\"seconds\": %.6f, \"core\": \"%s\"}", now() - start, openblas_get_corename());
  munmap(const_cast<float *>(q), m * d * sizeof(float));
  munmap(const_cast<float *>(base), n * d * sizeof(float));
}

} // namespace

int main() {
  for (const char *verb; (verb = command_read()) != nullptr;) {
    const std::string v = verb;
    try {
      if (v == "threads") {
        n_threads = number("n");
        omp_set_num_threads(static_cast<int>(n_threads));
        openblas_set_num_threads(static_cast<int>(n_threads));
        answer("{}");
      } else if (v == "build") build();
      else if (v == "search") search(false);
      else if (v == "single") search(true);
      else if (v == "sgemm") sgemm();
      else if (v == "drop") {
        table.erase(text("name"));
        malloc_trim(0);
        answer("{}");
      } else die("no verb %s", verb);
    } catch (const std::exception &e) { /* what a peer cannot do is said, and the run goes on */
      std::string what = e.what();
      for (char &c : what)
        if (c == '"' || c == '\\' || c == '\n') c = ' ';
      answer("{\"error\": \"%s\"}", what.c_str());
    }
  }
  return 0;
}
