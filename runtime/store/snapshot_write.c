/* snapshot_write.c - parts → a snapshot file.
 *
 * Arrays of the pack (n interactions, user-major):
 *   meta u64[6]          n_users, n_items, n, valid cut, test cut (seconds, two's complement), sequential
 *   user.ptr u64, inter.item u32, inter.fold u8, [inter.time i64], [inter.rating f32]
 *   item.ptr u64, item.inter u32   an item's interactions as positions, ascending: the other way round
 *   user.id.bytes u8, user.id.ptr u64, user.id.table u32   ids, and where XXH3(id) finds them; item.id.* likewise
 *   columns u8           a line "side type name" for each feature column c
 *   c.N.values f32 | c.N.codes u32 [c.N.ptr u64], c.N.tokens u8, c.N.token_ptr u64 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"

size_t ev_id_slots(size_t n) {
  size_t slots = 4;
  while (slots < 2 * n) slots *= 2;
  return slots;
}

static ev_status write_ids(ev_pack_writer *w, const char *side, const ev_strings *ids) {
  char name[48];
  size_t slots = ev_id_slots(ids->n);
  uint32_t *table = ev_alloc(slots, sizeof *table);
  if (table == NULL) return EV_ENOMEM;
  memset(table, 0xFF, slots * sizeof *table); /* EV_NONE */
  for (size_t i = 0; i < ids->n; i++) {
    size_t slot = ev_checksum(ids->bytes + ids->ptr[i], ids->ptr[i + 1] - ids->ptr[i]) & (slots - 1);
    while (table[slot] != EV_NONE) slot = (slot + 1) & (slots - 1);
    table[slot] = (uint32_t)i;
  }
  snprintf(name, sizeof name, "%s.id.table", side);
  ev_status status = ev_pack_write(w, name, EV_U32, table, slots, 1);
  ev_free(table);
  EV_TRY(status);
  snprintf(name, sizeof name, "%s.id.ptr", side);
  EV_TRY(ev_pack_write(w, name, EV_U64, ids->ptr, ids->n + 1, 1));
  snprintf(name, sizeof name, "%s.id.bytes", side);
  return ev_pack_write(w, name, EV_U8, ids->bytes, ids->ptr[ids->n], 1);
}

/* Rows of a column in the order given (NULL: as they are). */
static ev_status write_column(ev_pack_writer *w, size_t number, const ev_column *c, const uint32_t *order) {
  char name[48];
  ev_status status = EV_OK;
  void *moved = NULL;
  uint64_t *ptr = NULL;
  if (c->type == EV_TOKEN_LIST) {
    size_t total = c->ptr[c->n_rows], at = 0;
    uint32_t *codes = moved = ev_alloc(total, sizeof *codes);
    ptr = ev_alloc(c->n_rows + 1, sizeof *ptr);
    if (codes == NULL || ptr == NULL) {
      status = EV_ENOMEM;
      goto done;
    }
    for (size_t i = 0; i < c->n_rows; i++) {
      size_t row = order != NULL ? order[i] : i, len = c->ptr[row + 1] - c->ptr[row];
      ptr[i] = at;
      if (len > 0) memcpy(codes + at, c->codes + c->ptr[row], len * sizeof *codes);
      at += len;
    }
    ptr[c->n_rows] = at;
    snprintf(name, sizeof name, "c.%zu.ptr", number);
    status = ev_pack_write(w, name, EV_U64, ptr, c->n_rows + 1, 1);
    snprintf(name, sizeof name, "c.%zu.codes", number);
    if (status == EV_OK) status = ev_pack_write(w, name, EV_U32, codes, total, 1);
  } else { /* values and codes are both 32 bits wide */
    const uint32_t *from = c->type == EV_FLOAT ? (const uint32_t *)(const void *)c->values : c->codes;
    uint32_t *to = moved = ev_alloc(c->n_rows, sizeof *to);
    if (to == NULL) {
      status = EV_ENOMEM;
      goto done;
    }
    for (size_t i = 0; i < c->n_rows; i++) to[i] = from[order != NULL ? order[i] : i];
    snprintf(name, sizeof name, c->type == EV_FLOAT ? "c.%zu.values" : "c.%zu.codes", number);
    status = ev_pack_write(w, name, c->type == EV_FLOAT ? EV_F32 : EV_U32, to, c->n_rows, 1);
  }
  if (status == EV_OK && c->type != EV_FLOAT) {
    snprintf(name, sizeof name, "c.%zu.token_ptr", number);
    status = ev_pack_write(w, name, EV_U64, c->token_ptr, c->n_tokens + 1, 1);
    snprintf(name, sizeof name, "c.%zu.tokens", number);
    if (status == EV_OK) status = ev_pack_write(w, name, EV_U8, c->token_bytes, c->token_ptr[c->n_tokens], 1);
  }
done:
  ev_free(moved);
  ev_free(ptr);
  return status;
}

static ev_status write_columns(ev_pack_writer *w, const ev_snapshot_parts *p, const uint32_t *order) {
  const ev_column *groups[3] = {p->user_columns, p->item_columns, p->interaction_columns};
  size_t counts[3] = {p->n_user_columns, p->n_item_columns, p->n_interaction_columns}, number = 0;
  ev_buf list = {0};
  ev_status status = EV_OK;
  for (int side = 0; side < 3 && status == EV_OK; side++) {
    for (size_t i = 0; i < counts[side] && status == EV_OK; i++, number++) {
      const ev_column *c = &groups[side][i];
      status = ev_buf_printf(&list, "%d %d %s\n", side, (int)c->type, c->name);
      if (status == EV_OK) status = write_column(w, number, c, side == EV_INTERACTION ? order : NULL);
    }
  }
  if (status == EV_OK) status = ev_pack_write(w, "columns", EV_U8, list.data, list.len, 1);
  ev_buf_free(&list);
  return status;
}

typedef struct timed {
  int64_t time;
  uint32_t position;
} timed;

static int by_time(const void *a, const void *b) {
  const timed *x = a, *y = b;
  if (x->time != y->time) return x->time < y->time ? -1 : 1;
  return x->position < y->position ? -1 : x->position > y->position;
}

/* ptr (n_users + 1) and order (n): position in the files of each interaction, user-major. */
static ev_status sort_by_user(const ev_snapshot_parts *p, uint64_t *ptr, uint32_t *order) {
  memset(ptr, 0, (p->n_users + 1) * sizeof *ptr);
  for (size_t i = 0; i < p->n; i++) ptr[p->user[i] + 1]++;
  size_t longest = 0;
  for (size_t u = 0; u < p->n_users; u++) {
    if (ptr[u + 1] > longest) longest = ptr[u + 1];
    ptr[u + 1] += ptr[u];
  }
  for (size_t i = 0; i < p->n; i++) order[ptr[p->user[i]]++] = (uint32_t)i;
  for (size_t u = p->n_users; u > 0; u--) ptr[u] = ptr[u - 1];
  ptr[0] = 0;
  if (p->time == NULL) return EV_OK;
  timed *rows = ev_alloc(longest, sizeof *rows);
  if (rows == NULL) return EV_ENOMEM;
  for (size_t u = 0; u < p->n_users; u++) {
    size_t n = ptr[u + 1] - ptr[u];
    uint32_t *mine = order + ptr[u];
    for (size_t i = 0; i < n; i++) rows[i] = (timed){p->time[mine[i]], mine[i]};
    qsort(rows, n, sizeof *rows, by_time);
    for (size_t i = 0; i < n; i++) mine[i] = rows[i].position;
  }
  ev_free(rows);
  return EV_OK;
}

/* One array of the interactions at a time, moved into the new order: the extra memory is that of the widest. */
#define WRITE_MOVED(name, dtype, type, source)                     \
  do {                                                             \
    type *to_ = scratch;                                           \
    for (size_t i_ = 0; i_ < p->n; i_++) to_[i_] = source[order[i_]]; \
    status = ev_pack_write(w, name, dtype, to_, p->n, 1);          \
    if (status != EV_OK) goto done;                                \
  } while (0)

static ev_status write_interactions(ev_pack_writer *w, const ev_snapshot_parts *p, const uint64_t *user_ptr, const uint32_t *order) {
  ev_status status = EV_ENOMEM;
  void *scratch = ev_alloc(p->n, p->time != NULL ? sizeof(int64_t) : sizeof(uint32_t));
  uint64_t *item_ptr = ev_zalloc(p->n_items + 1, sizeof *item_ptr);
  if (scratch == NULL || item_ptr == NULL) goto done;
  status = ev_pack_write(w, "user.ptr", EV_U64, user_ptr, p->n_users + 1, 1);
  if (status != EV_OK) goto done;
  WRITE_MOVED("inter.item", EV_U32, uint32_t, p->item);
  WRITE_MOVED("inter.fold", EV_U8, uint8_t, p->fold);
  if (p->time != NULL) WRITE_MOVED("inter.time", EV_I64, int64_t, p->time);
  if (p->rating != NULL) WRITE_MOVED("inter.rating", EV_F32, float, p->rating);
  for (size_t i = 0; i < p->n; i++) item_ptr[p->item[i] + 1]++;
  for (size_t i = 0; i < p->n_items; i++) item_ptr[i + 1] += item_ptr[i];
  uint32_t *positions = scratch;
  for (size_t i = 0; i < p->n; i++) positions[item_ptr[p->item[order[i]]]++] = (uint32_t)i;
  for (size_t i = p->n_items; i > 0; i--) item_ptr[i] = item_ptr[i - 1];
  item_ptr[0] = 0;
  status = ev_pack_write(w, "item.ptr", EV_U64, item_ptr, p->n_items + 1, 1);
  if (status == EV_OK) status = ev_pack_write(w, "item.inter", EV_U32, positions, p->n, 1);
done:
  ev_free(scratch);
  ev_free(item_ptr);
  return status;
}

ev_status ev_snapshot_write(const ev_snapshot_parts *p, const char *path) {
  if (p->n >= EV_NONE || p->n_users >= EV_NONE || p->n_items >= EV_NONE)
    return ev_fail(EV_ELIMIT, "%zu interactions: a snapshot holds fewer than 2^32", p->n);
  uint64_t meta[6] = {p->n_users, p->n_items, p->n, (uint64_t)p->valid_cut, (uint64_t)p->test_cut, p->sequential};
  uint64_t *ptr = ev_alloc(p->n_users + 1, sizeof *ptr);
  uint32_t *order = ev_alloc(p->n, sizeof *order);
  ev_pack_writer *w = NULL;
  ev_status status = EV_ENOMEM;
  if (ptr == NULL || order == NULL) goto done;
  status = sort_by_user(p, ptr, order);
  if (status == EV_OK) status = ev_pack_writer_open(&w, path, "snapshot");
  if (status == EV_OK) status = ev_pack_write(w, "meta", EV_U64, meta, 6, 1);
  if (status == EV_OK) status = write_interactions(w, p, ptr, order);
  if (status == EV_OK) status = write_ids(w, "user", &p->user_ids);
  if (status == EV_OK) status = write_ids(w, "item", &p->item_ids);
  if (status == EV_OK) status = write_columns(w, p, order);
  if (status == EV_OK) {
    status = ev_pack_writer_commit(w);
    w = NULL;
  }
done:
  ev_pack_writer_abort(w);
  ev_free(ptr);
  ev_free(order);
  return status;
}
