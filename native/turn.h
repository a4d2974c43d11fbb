/*
 * A worker's turn: the verdicts of its last batch go out and the next batch comes in, by one call without arguments. A batch
 * of packets and the words of the call (src/dataplane/io/turn.ts) are lent beforehand: to read them from arguments
 * takes longer than a packet, and in cold caches several times that.
 */
#ifndef HUTTER_TURN_H
#define HUTTER_TURN_H

#include "util.h"

enum turn_word {
  /* In: records whose verdicts are carried out, from and up to. */
  TURN_FROM = 0,
  TURN_TO = 1,
  /* In: packets to receive at most; 0: none is asked for. */
  TURN_ROOM = 2,
  /* In: milliseconds to wait for them, < 0 for ever. */
  TURN_TIMEOUT = 3,
  /* Out: packets received, or −errno. */
  TURN_RECEIVED = 4,
  /* Out: CLOCK_MONOTONIC and CLOCK_REALTIME when they were, in milliseconds. */
  TURN_NOW = 5,
  TURN_WALL = 6,
  /* Out: the first of the device's own totals. */
  TURN_STATS = 7,
};

struct turn {
  uint8_t *bytes;
  size_t bytes_length;
  int32_t *meta;
  /* Records that meta and bytes have room for. */
  size_t records;
  size_t slot_size;
  double *words;
  /* They keep the three arrays. */
  napi_ref lent[3];
};

/* From now on the turn has these arrays; `stats`: words behind TURN_STATS. Throws and returns false when they are too small. */
bool turn_lend(napi_env env, struct turn *turn, const napi_value arrays[3], size_t slot_size, size_t stats);
/* Lets go of them. */
void turn_release(napi_env env, struct turn *turn);
/* A function that calls `callback` with `handle` as its data, and keeps the handle behind `external`. */
napi_value turn_function(napi_env env, napi_callback callback, struct handle *handle, napi_value external);
/* The open handle whose function is called; otherwise throws and returns NULL. */
void *turn_handle(napi_env env, napi_callback_info info);
/* Whether words ask for what the arrays have room for; otherwise throws. */
bool turn_valid(napi_env env, const struct turn *turn);
void turn_tell_time(struct turn *turn);

#endif
