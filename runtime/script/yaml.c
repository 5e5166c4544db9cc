/* yaml.c - YAML files → tables that know their lines.
 *
 * libyaml reads; here its events become tables, plain scalars typed by the YAML 1.2 core schema. Aliases and
 * tags are refused (no file here needs them, and aliases can blow up), depth and size are bounded, and a key
 * given twice is an error. Beside the tree goes a table: table of the tree → { key → line }. */
#include <string.h>
#include <yaml.h>

#include "bind.h"

#define DEPTH_MAX 32
#define SIZE_MAX_BYTES (1u << 20)

typedef struct reader {
  lua_State *L;
  yaml_parser_t parser;
  const char *file;
  int lines; /* stack index of the table of lines */
} reader;

static ev_status next(reader *r, yaml_event_t *event) {
  if (yaml_parser_parse(&r->parser, event)) return EV_OK;
  size_t line = r->parser.problem_mark.line + 1;
  return ev_fail(EV_EINVAL, "%s:%zu: %s%s%s", r->file, line, r->parser.problem != NULL ? r->parser.problem : "not YAML",
                 r->parser.context != NULL ? " " : "", r->parser.context != NULL ? r->parser.context : "");
}

static ev_status refuse(reader *r, const yaml_event_t *event, const char *what) {
  return ev_fail(EV_EINVAL, "%s:%zu: %s", r->file, event->start_mark.line + 1, what);
}

static void push_scalar(lua_State *L, const yaml_event_t *event) {
  const char *s = (const char *)event->data.scalar.value;
  size_t len = event->data.scalar.length;
  double number;
  if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) lua_pushlstring(L, s, len);
  else if (len == 0 || strcmp(s, "~") == 0 || strcmp(s, "null") == 0) lua_pushnil(L);
  else if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0) lua_pushboolean(L, s[0] == 't');
  else if (ev_parse_f64(s, len, &number)) lua_pushnumber(L, number);
  else lua_pushlstring(L, s, len);
}

static ev_status read_value(reader *r, yaml_event_t *event, int depth);

static void note_line(reader *r, int table, size_t line) { /* key on top of the stack stays */
  lua_State *L = r->L;
  lua_pushvalue(L, table);
  lua_rawget(L, r->lines);
  lua_pushvalue(L, -2);
  lua_pushnumber(L, (double)line + 1);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static ev_status read_collection(reader *r, bool mapping, size_t line_of_start, int depth) {
  lua_State *L = r->L;
  if (depth > DEPTH_MAX || !lua_checkstack(L, 16)) return ev_fail(EV_EINVAL, "%s:%zu: nested deeper than %d", r->file, line_of_start + 1, DEPTH_MAX);
  lua_newtable(L);
  int table = lua_gettop(L);
  if (!mapping) {
    luaL_getmetatable(L, "ev.array");
    lua_setmetatable(L, table);
  }
  lua_pushvalue(L, table);
  lua_newtable(L);
  lua_rawset(L, r->lines);
  for (int i = 1;; i++) {
    yaml_event_t event;
    EV_TRY(next(r, &event));
    ev_status status = EV_OK;
    bool end = event.type == (mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT);
    size_t line = event.start_mark.line;
    if (end) {
      yaml_event_delete(&event);
      return EV_OK;
    }
    if (!mapping) {
      lua_pushinteger(L, i);
      note_line(r, table, line);
      status = read_value(r, &event, depth);
    } else if (event.type != YAML_SCALAR_EVENT) {
      status = refuse(r, &event, "a key must be plain text");
    } else if (event.data.scalar.anchor != NULL || event.data.scalar.tag != NULL) {
      status = refuse(r, &event, "anchors and tags are not taken");
    } else {
      lua_pushlstring(L, (const char *)event.data.scalar.value, event.data.scalar.length);
      lua_pushvalue(L, table);
      lua_rawget(L, r->lines);
      lua_pushvalue(L, -2);
      lua_rawget(L, -2); /* its line: a key of null was given too */
      if (!lua_isnil(L, -1))
        status = ev_fail(EV_EINVAL, "%s:%zu: '%.60s' is given twice", r->file, line + 1, (const char *)event.data.scalar.value);
      lua_pop(L, 2);
      if (status == EV_OK) {
        note_line(r, table, line);
        yaml_event_t value;
        status = next(r, &value);
        if (status == EV_OK) {
          status = read_value(r, &value, depth);
          yaml_event_delete(&value);
        }
      }
    }
    yaml_event_delete(&event);
    EV_TRY(status);
    lua_rawset(L, table);
  }
}

/* Pushes the value that starts with this event. */
static ev_status read_value(reader *r, yaml_event_t *event, int depth) {
  switch (event->type) {
    case YAML_SCALAR_EVENT:
      if (event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL) return refuse(r, event, "anchors and tags are not taken");
      push_scalar(r->L, event);
      return EV_OK;
    case YAML_MAPPING_START_EVENT:
      if (event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL) return refuse(r, event, "anchors and tags are not taken");
      return read_collection(r, true, event->start_mark.line, depth + 1);
    case YAML_SEQUENCE_START_EVENT:
      if (event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL) return refuse(r, event, "anchors and tags are not taken");
      return read_collection(r, false, event->start_mark.line, depth + 1);
    case YAML_ALIAS_EVENT: return refuse(r, event, "aliases are not taken");
    default: return refuse(r, event, "unexpected end");
  }
}

static ev_status read_document(reader *r) {
  bool found = false;
  for (;;) {
    yaml_event_t event;
    EV_TRY(next(r, &event));
    ev_status status = EV_OK;
    yaml_event_type_t type = event.type;
    if (type == YAML_DOCUMENT_START_EVENT && found) status = refuse(r, &event, "one document a file");
    else if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT &&
             type != YAML_STREAM_END_EVENT) {
      found = true;
      status = read_value(r, &event, 0);
    }
    yaml_event_delete(&event);
    EV_TRY(status);
    if (type == YAML_STREAM_END_EVENT) return found ? EV_OK : ev_fail(EV_EINVAL, "%s:1: the file is empty", r->file);
  }
}

/* yaml_parse(text, name) → tree, lines */
static int yaml_parse(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  reader r = {.L = L, .file = luaL_checkstring(L, 2)};
  if (len > SIZE_MAX_BYTES) return ev_lua_fail(L, ev_fail(EV_EINVAL, "%s: larger than %u bytes", r.file, SIZE_MAX_BYTES));
  size_t bad = ev_utf8_invalid(text, len);
  if (bad != len) {
    size_t line = 1;
    for (size_t i = 0; i < bad; i++) line += text[i] == '\n';
    return ev_lua_fail(L, ev_fail(EV_EINVAL, "%s:%zu: not UTF-8", r.file, line));
  }
  if (!yaml_parser_initialize(&r.parser)) return ev_lua_fail(L, ev_fail(EV_ENOMEM, "out of memory"));
  yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
  yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
  lua_settop(L, 2);
  lua_newtable(L);
  r.lines = 3;
  ev_status status = read_document(&r);
  yaml_parser_delete(&r.parser);
  EV_CHECK(L, status);
  lua_settop(L, 4);
  lua_insert(L, 3); /* tree, lines */
  return 2;
}

void ev_bind_yaml(lua_State *L) {
  lua_pushcfunction(L, yaml_parse);
  lua_setfield(L, -2, "yaml_parse");
}
