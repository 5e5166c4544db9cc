/* text.c - what every parser needs: UTF-8 and numbers, whatever the locale. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

/* Björn Höhrmann's table is faster on dense non-ASCII text; ids and titles are mostly ASCII, so eight bytes at
 * a time come first and the rest follows the table of well-formed sequences (Unicode 15, table 3-7). */
size_t ev_utf8_invalid(const char *text, size_t len) {
  const unsigned char *s = (const unsigned char *)text;
  size_t i = 0;
  while (i < len) {
    while (i + 8 <= len) {
      uint64_t word;
      memcpy(&word, s + i, 8);
      if (word & 0x8080808080808080u) break;
      i += 8;
    }
    if (i >= len) break;
    unsigned char c = s[i];
    if (c < 0x80) {
      i++;
      continue;
    }
    size_t more;
    unsigned char low = 0x80, high = 0xBF;
    if (c >= 0xC2 && c <= 0xDF) more = 1;
    else if (c >= 0xE0 && c <= 0xEF) more = 2, low = c == 0xE0 ? 0xA0 : 0x80, high = c == 0xED ? 0x9F : 0xBF;
    else if (c >= 0xF0 && c <= 0xF4) more = 3, low = c == 0xF0 ? 0x90 : 0x80, high = c == 0xF4 ? 0x8F : 0xBF;
    else return i;
    if (len - i <= more || s[i + 1] < low || s[i + 1] > high) return i;
    for (size_t k = 2; k <= more; k++)
      if ((s[i + k] & 0xC0) != 0x80) return i;
    i += more + 1;
  }
  return len;
}

bool ev_parse_i64(const char *s, size_t len, int64_t *out) {
  size_t i = 0;
  bool negative = len > 0 && s[0] == '-';
  if (len > 0 && (s[0] == '-' || s[0] == '+')) i = 1;
  if (i == len) return false;
  int64_t value = 0;
  for (; i < len; i++) {
    if (s[i] < '0' || s[i] > '9') return false;
    int digit = s[i] - '0';
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_sub_overflow(value, digit, &value)) return false;
  }
  if (!negative && value == INT64_MIN) return false;
  *out = negative ? value : -value;
  return true;
}

/* Up to 15 digits and a power of ten up to 22 are exact in two doubles (Clinger 1990); the rest goes to strtod
 * in the C locale. */
bool ev_parse_f64(const char *s, size_t len, double *out) {
  static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  size_t i = 0, digits = 0, fraction = 0;
  bool negative = len > 0 && s[0] == '-', point = false, any = false;
  uint64_t mantissa = 0;
  if (len > 0 && (s[0] == '-' || s[0] == '+')) i = 1;
  for (; i < len; i++) {
    if (s[i] >= '0' && s[i] <= '9') {
      any = true;
      if (mantissa > 0 || s[i] != '0') digits++;
      if (digits <= 15) mantissa = mantissa * 10 + (uint64_t)(s[i] - '0');
      if (point) fraction++;
    } else if (s[i] == '.' && !point) {
      point = true;
    } else {
      break;
    }
  }
  if (!any) return false;
  if (i == len && digits <= 15 && fraction <= 22) {
    double value = (double)mantissa / powers[fraction];
    *out = negative ? -value : value;
    return true;
  }
  for (size_t k = i; k < len; k++) /* no hexadecimal, inf, nan or spaces */
    if (strchr("0123456789eE+-", s[k]) == NULL || s[k] == '\0') return false;
  char copy[128];
  if (len >= sizeof copy) return false;
  memcpy(copy, s, len);
  copy[len] = '\0';
  static _Thread_local locale_t c_locale;
  if (c_locale == (locale_t)0) c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  char *end;
  double value = c_locale == (locale_t)0 ? strtod(copy, &end) : strtod_l(copy, &end, c_locale);
  if (end != copy + len || !isfinite(value)) return false;
  *out = value;
  return true;
}

size_t ev_edit_distance(const char *a, const char *b) {
  size_t row[64], n = strlen(b);
  if (n >= 63) return SIZE_MAX;
  for (size_t j = 0; j <= n; j++) row[j] = j;
  for (size_t i = 1; a[i - 1] != '\0'; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      size_t up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
      if (up + 1 < best) best = up + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = up;
      row[j] = best;
    }
  }
  return row[n];
}

double ev_float_decimal(float x) {
  char text[32];
  double y = (double)x;
  for (int digits = 6; digits <= 9 && isfinite(x); digits++) {
    snprintf(text, sizeof text, "%.*e", digits - 1, (double)x);
    if (ev_parse_f64(text, strlen(text), &y) && (float)y == x) return y;
  }
  return (double)x;
}

char *ev_text_mend(char *s) {
  size_t len = strlen(s), bad;
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)s[i] < 0x20) s[i] = '?';
  while ((bad = ev_utf8_invalid(s, len)) < len) s[bad] = '?';
  return s;
}
