/* ope.h - what estimators of single decisions and of slates share; private to this room. */
#ifndef EV_REWARD_OPE_H
#define EV_REWARD_OPE_H

#include "reward.h"

const double *ope_row(const ev_ope_matrix *m, double *buffer, size_t row, size_t n_arms); /* where it lies, or made in buffer */
double ope_mean(const double *x, size_t n);
double ope_variance(const double *x, size_t n); /* unbiased */
ev_status ope_weights(ev_ope_weights *out, const double *w, size_t n); /* all but unsupported */
/* What was given, with what was left open filled from the rewards and the largest weight. */
ev_status ope_options(ev_ope_options *out, const ev_ope_options *given, const double *reward, size_t n, double max_weight);
ev_status ope_check_distribution(const double *p, size_t n_arms, size_t row);

ev_status ope_check_clusters(const ev_ope_options *o, size_t n);
/* Of the mean of x, rows by themselves or with their cluster. EV_ENOMEM */
ev_status ope_standard_error(double *out, const double *x, size_t n, const ev_ope_options *o);
/* Means of rows (n, n_columns) over o's resamples of rows, or of clusters. @param[out] means (n_bootstrap, n_columns). EV_ENOMEM, EV_EINTR */
ev_status ope_bootstrap(double *means, const double *rows, size_t n, size_t n_columns, const ev_ope_options *o);
void ope_interval(ev_ope_estimate *e, double *x, size_t n, double confidence); /* of what resamples gave; sorts x */

/* A confidence set, as an interval, for ρ = E w x / E w: those that empirical Bernstein does not refute as the mean of
 * w (x − ρ) being 0. Within [x_low, x_high], which hold x; w in [0, max_weight]. n > 1. */
void ope_ratio_bernstein(double *low, double *high, const double *w, const double *x, size_t n, double max_weight, double x_low, double x_high, double confidence);

#endif
