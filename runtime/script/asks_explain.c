/* asks_explain.c - where each item of a slate came from, and what each node did. Read from the slates as the request left them. */
#include <stdio.h>
#include <string.h>

#include "asks.h"

static size_t place_of(ev_slate *slate, uint32_t item) { /* from 1; 0: it is not there */
  const uint32_t *items = ev_slate_items(slate);
  for (size_t i = 0; i < ev_slate_n(slate); i++)
    if (items[i] == item) return i + 1;
  return 0;
}

/* The node whose order the re-ranking of the output began with. */
static const ev_asks_node *before_reranking(const ev_asks *a) {
  const ev_asks_node *node = &a->nodes[a->output];
  while (node->step->role == EV_ROLE_RERANK || node->step->role == EV_ROLE_EXPLORE) {
    const ev_asks_node *from = NULL;
    for (size_t i = 0; i < a->n_nodes; i++)
      if (a->nodes[i].step->slate == node->step->in[0]) from = &a->nodes[i];
    if (from == NULL) break;
    node = from;
  }
  return node;
}

static ev_status word(ev_buf *text, const char *key, const char *value) {
  EV_TRY(ev_buf_printf(text, ", \"%s\": ", key));
  return ev_json_text(value, strlen(value), text);
}

static ev_status tell_node(const ev_asks *a, const ev_asks_node *node, const ev_answer *answer, ev_buf *text) {
  EV_TRY(ev_buf_printf(text, "%s{\"node\": ", node == a->nodes ? "" : ", "));
  EV_TRY(ev_json_text(node->name, strlen(node->name), text));
  EV_TRY(word(text, "agent", node->agent));
  EV_TRY(word(text, "role", ev_role_names[node->step->role]));
  EV_TRY(word(text, "agent_hash", node->hash));
  EV_TRY(ev_buf_printf(text, ", \"ms\": %.4f, \"candidates\": %zu", (double)node->took_ns * 1e-6, node->candidates));
  if (node->failed) EV_TRY(word(text, "cut", strcmp(node->name, answer->cut) == 0 ? answer->why : "failed"));
  return ev_buf_append(text, "}", 1);
}

static ev_status tell_item(const ev_asks *a, const ev_asks_node *base, const ev_answer *answer, size_t at, ev_buf *text) {
  const ev_pick *p = &answer->picks[at];
  bool first = true;
  EV_TRY(ev_buf_printf(text, "%s{\"item\": %u, \"position\": %zu, \"from\": [", at == 0 ? "" : ", ", p->item, at + 1));
  for (size_t i = 0; i < a->n_nodes; i++) {
    const ev_asks_node *node = &a->nodes[i];
    size_t rank = node->step->role == EV_ROLE_RECALL ? place_of(node->step->slate->slate, p->item) : 0;
    if (rank == 0) continue;
    EV_TRY(ev_buf_printf(text, "%s{\"node\": ", first ? "" : ", "));
    EV_TRY(ev_json_text(node->name, strlen(node->name), text));
    EV_TRY(ev_buf_printf(text, ", \"rank\": %zu, \"score\": ", rank));
    EV_TRY(ev_json_number(ev_float_decimal(ev_slate_scores(node->step->slate->slate)[rank - 1]), text));
    EV_TRY(ev_buf_append(text, "}", 1));
    first = false;
  }
  EV_TRY(ev_buf_append(text, "], \"score\": ", 12));
  EV_TRY(ev_json_number(ev_float_decimal(p->score), text));
  size_t before = place_of(base->step->slate->slate, p->item);
  return ev_buf_printf(text, ", \"moved\": %lld}", before > 0 ? (long long)before - (long long)(at + 1) : 0);
}

ev_status ev_asks_explain(ev_asks *a, const ev_answer *answer, ev_buf *text) {
  const ev_asks_node *base = before_reranking(a);
  EV_TRY(ev_buf_append(text, "{\"nodes\": [", 11));
  for (size_t i = 0; i < a->n_nodes; i++) EV_TRY(tell_node(a, &a->nodes[i], answer, text));
  EV_TRY(ev_buf_append(text, "], \"items\": [", 13));
  for (size_t i = 0; i < answer->n; i++) EV_TRY(tell_item(a, base, answer, i, text));
  return ev_buf_append(text, "]}", 2);
}
