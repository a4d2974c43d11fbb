/*
 * Handles and their three ends (close, collection, the environment's end), errors with errno and call, and reading of
 * arguments. See util.h.
 */
#include "util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static void handle_close(struct handle *handle) {
  if (!handle->open) return;
  handle->open = false;
  handle->close(handle);
}

static void on_environment_end(void *data) {
  struct handle *handle = data;
  handle->hooked = false;
  handle_close(handle);
}

static void finalize(napi_env env, void *data, void *hint) {
  struct handle *handle = data;
  handle_close(handle);
  if (handle->hooked) napi_remove_env_cleanup_hook(env, on_environment_end, handle);
  if (handle->release) handle->release(handle);
  free(handle);
}

napi_value handle_publish(napi_env env, struct handle *handle, enum handle_kind kind, void (*close)(struct handle *),
                          void (*release)(struct handle *)) {
  napi_value external;
  handle->kind = kind;
  handle->open = true;
  handle->env = env;
  handle->close = close;
  handle->release = release;
  if (napi_create_external(env, handle, finalize, NULL, &external) != napi_ok) {
    handle_close(handle);
    if (release) release(handle);
    free(handle);
    napi_throw_error(env, NULL, "napi_create_external failed");
    return NULL;
  }
  handle->hooked = napi_add_env_cleanup_hook(env, on_environment_end, handle) == napi_ok;
  return external;
}

void *handle_get(napi_env env, napi_value value, enum handle_kind kind) {
  napi_valuetype type;
  void *data = NULL;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external ||
      napi_get_value_external(env, value, &data) != napi_ok || ((struct handle *)data)->kind != kind) {
    napi_throw_type_error(env, NULL, "a handle of another kind");
    return NULL;
  }
  if (!((struct handle *)data)->open) {
    napi_throw_error(env, "EBADF", "the handle is closed");
    return NULL;
  }
  return data;
}

napi_value close_handle(napi_env env, napi_callback_info info) {
  napi_value args[1];
  napi_valuetype type;
  void *data = NULL;
  if (!get_args(env, info, 1, args)) return NULL;
  if (napi_typeof(env, args[0], &type) != napi_ok || type != napi_external ||
      napi_get_value_external(env, args[0], &data) != napi_ok) {
    napi_throw_type_error(env, NULL, "not a handle");
    return NULL;
  }
  handle_close(data);
  return NULL;
}

napi_value throw_errno(napi_env env, int error, const char *call) {
  const char *code = uv_err_name(-error);
  char text[160];
  napi_value message, value, object;
  snprintf(text, sizeof text, "%s: %s (%s)", call, strerror(error), code);
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &value);
  if (napi_create_error(env, value, message, &object) != napi_ok) return NULL;
  napi_create_int32(env, error, &value);
  napi_set_named_property(env, object, "errno", value);
  napi_create_string_utf8(env, call, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, object, "syscall", value);
  napi_throw(env, object);
  return NULL;
}

bool get_args(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count;
  if (napi_get_cb_info(env, info, &given, values, NULL, NULL) != napi_ok || given < count) {
    napi_throw_type_error(env, NULL, "too few arguments");
    return false;
  }
  return true;
}

int32_t get_int(napi_env env, napi_value value) {
  int32_t number = 0;
  napi_get_value_int32(env, value, &number);
  return number;
}

bool get_text(napi_env env, napi_value value, char *to, size_t size) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok || length >= size ||
      napi_get_value_string_utf8(env, value, to, size, &length) != napi_ok) {
    napi_throw_type_error(env, NULL, "no text, or too long a one");
    return false;
  }
  return true;
}

static const uint64_t nothing;

static void *get_array(napi_env env, napi_value value, napi_typedarray_type wanted, size_t *length) {
  napi_typedarray_type type;
  void *data = NULL;
  if (napi_get_typedarray_info(env, value, &type, length, &data, NULL, NULL) != napi_ok || type != wanted) {
    napi_throw_type_error(env, NULL, "a typed array of another kind");
    return NULL;
  }
  /* An empty one has no memory, and is no error. */
  return data ? data : (void *)&nothing;
}

uint8_t *get_bytes(napi_env env, napi_value value, size_t *length) {
  return get_array(env, value, napi_uint8_array, length);
}

int32_t *get_words(napi_env env, napi_value value, size_t *length) {
  return get_array(env, value, napi_int32_array, length);
}

double *get_doubles(napi_env env, napi_value value, size_t *length) {
  return get_array(env, value, napi_float64_array, length);
}

napi_value make_int(napi_env env, int32_t value) {
  napi_value result;
  return napi_create_int32(env, value, &result) == napi_ok ? result : NULL;
}
