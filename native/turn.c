/* What a turn of every device needs: the arrays lent, the function that is called, the clocks. See turn.h. */
#include "turn.h"
#include "batch.h"

#include <time.h>

bool turn_lend(napi_env env, struct turn *turn, const napi_value arrays[3], size_t slot_size, size_t stats) {
  size_t bytes_length, meta_length, words_length, records;
  uint8_t *const bytes = get_bytes(env, arrays[0], &bytes_length);
  int32_t *const meta = bytes ? get_words(env, arrays[1], &meta_length) : NULL;
  double *const words = meta ? get_doubles(env, arrays[2], &words_length) : NULL;
  if (!words) return false;
  if (slot_size < 2 * HEADROOM || words_length < TURN_STATS + stats) {
    napi_throw_range_error(env, NULL, "slots or words too small for a batch");
    return false;
  }
  records = meta_length / META_WORDS;
  if (bytes_length / slot_size < records) records = bytes_length / slot_size;
  turn_release(env, turn);
  for (int i = 0; i < 3; i++) napi_create_reference(env, arrays[i], 1, &turn->lent[i]);
  turn->bytes = bytes;
  turn->bytes_length = bytes_length;
  turn->meta = meta;
  turn->records = records;
  turn->slot_size = slot_size;
  turn->words = words;
  return true;
}

void turn_release(napi_env env, struct turn *turn) {
  for (int i = 0; i < 3; i++) {
    if (turn->lent[i]) napi_delete_reference(env, turn->lent[i]);
    turn->lent[i] = NULL;
  }
  turn->words = NULL;
  turn->records = 0;
}

napi_value turn_function(napi_env env, napi_callback callback, struct handle *handle, napi_value external) {
  napi_value function;
  if (napi_create_function(env, "turn", NAPI_AUTO_LENGTH, callback, handle, &function) != napi_ok ||
      napi_set_named_property(env, function, "handle", external) != napi_ok)
    return NULL;
  return function;
}

void *turn_handle(napi_env env, napi_callback_info info) {
  void *handle = NULL;
  napi_get_cb_info(env, info, NULL, NULL, NULL, &handle);
  if (((struct handle *)handle)->open) return handle;
  napi_throw_error(env, "EBADF", "the handle is closed");
  return NULL;
}

bool turn_valid(napi_env env, const struct turn *turn) {
  const double records = (double)turn->records;
  const double *const words = turn->words;
  if (words && words[TURN_FROM] >= 0 && words[TURN_FROM] <= words[TURN_TO] && words[TURN_TO] <= records &&
      words[TURN_ROOM] >= 0 && words[TURN_ROOM] <= records)
    return true;
  napi_throw_range_error(env, NULL, "more packets than the batch has room for");
  return false;
}

void turn_tell_time(struct turn *turn) {
  struct timespec now, wall;
  clock_gettime(CLOCK_MONOTONIC, &now);
  clock_gettime(CLOCK_REALTIME, &wall);
  turn->words[TURN_NOW] = (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
  turn->words[TURN_WALL] = (double)wall.tv_sec * 1e3 + (double)(wall.tv_nsec / 1000000);
}
