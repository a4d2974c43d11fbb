/*
 * What every part of the addon shares: descriptors that close themselves, errors that name errno and call, arguments.
 *
 * A handle is a struct that begins with `struct handle` and is given to JavaScript as an external. Its descriptors
 * close at the first of: close(), garbage collection, the end of its thread's environment (a worker that dies). There is
 * no static state: the addon is loaded in every thread, and a handle stays in the thread that made it.
 */
#ifndef HUTTER_UTIL_H
#define HUTTER_UTIL_H

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

enum handle_kind { HANDLE_NFQUEUE = 0x6e6601, HANDLE_WAKER, HANDLE_INJECT, HANDLE_RTNETLINK, HANDLE_MONITOR, HANDLE_TUN,
                   HANDLE_TUN_PORTS, HANDLE_NETFILTER };

struct handle {
  enum handle_kind kind;
  bool open;
  bool hooked;
  napi_env env;
  /* Closes descriptors and forgets them. Called once. */
  void (*close)(struct handle *);
  /* Frees what the struct points to, but not the struct. May be NULL. */
  void (*release)(struct handle *);
};

/* Hands a calloc'ed struct to JavaScript; on failure it is closed and freed, an exception is pending and NULL returned. */
napi_value handle_publish(napi_env env, struct handle *handle, enum handle_kind kind, void (*close)(struct handle *),
                          void (*release)(struct handle *));

/* The open handle behind a value; otherwise throws and returns NULL. */
void *handle_get(napi_env env, napi_value value, enum handle_kind kind);

/* Throws an Error with `code` ("EPERM"), `errno` (positive) and `syscall`. Returns NULL. */
napi_value throw_errno(napi_env env, int error, const char *call);

/* Reads exactly `count` arguments; throws a TypeError and returns false when there are fewer. */
bool get_args(napi_env env, napi_callback_info info, size_t count, napi_value *values);
/* Missing or non-numeric values read as 0: only our own typed wrapper calls these. */
int32_t get_int(napi_env env, napi_value value);
/* A string shorter than `size`, in UTF-8; otherwise throws and returns false. */
bool get_text(napi_env env, napi_value value, char *to, size_t size);

/* Memory behind a Uint8Array or Int32Array (also over a SharedArrayBuffer); `*length` in elements. NULL: threw. */
uint8_t *get_bytes(napi_env env, napi_value value, size_t *length);
int32_t *get_words(napi_env env, napi_value value, size_t *length);
double *get_doubles(napi_env env, napi_value value, size_t *length);

napi_value make_int(napi_env env, int32_t value);

/* Exports: one table in addon.c. */
napi_value close_handle(napi_env env, napi_callback_info info);
napi_value nfqueue_open(napi_env env, napi_callback_info info);
napi_value nfqueue_lend(napi_env env, napi_callback_info info);
napi_value nfqueue_copy(napi_env env, napi_callback_info info);
napi_value nfqueue_probe(napi_env env, napi_callback_info info);
napi_value nfqueue_unbind(napi_env env, napi_callback_info info);
napi_value waker_open(napi_env env, napi_callback_info info);
napi_value waker_fd(napi_env env, napi_callback_info info);
napi_value waker_wake(napi_env env, napi_callback_info info);
napi_value waker_wait(napi_env env, napi_callback_info info);
napi_value inject_open(napi_env env, napi_callback_info info);
napi_value inject_send(napi_env env, napi_callback_info info);
napi_value rtnetlink_open(napi_env env, napi_callback_info info);
napi_value rtnetlink_request(napi_env env, napi_callback_info info);
napi_value rtnetlink_dump(napi_env env, napi_callback_info info);
napi_value rtnetlink_route_get(napi_env env, napi_callback_info info);
napi_value monitor_open(napi_env env, napi_callback_info info);
napi_value monitor_drain(napi_env env, napi_callback_info info);
napi_value monitor_watch(napi_env env, napi_callback_info info);
napi_value tun_open(napi_env env, napi_callback_info info);
napi_value tun_fd(napi_env env, napi_callback_info info);
napi_value tun_attach(napi_env env, napi_callback_info info);
napi_value tun_lend(napi_env env, napi_callback_info info);
napi_value tun_send(napi_env env, napi_callback_info info);
napi_value tun_inject(napi_env env, napi_callback_info info);
napi_value tun_states(napi_env env, napi_callback_info info);
napi_value tun_leave(napi_env env, napi_callback_info info);
napi_value checksum_finish_bytes(napi_env env, napi_callback_info info);
napi_value advise_huge(napi_env env, napi_callback_info info);
napi_value netfilter_open(napi_env env, napi_callback_info info);
napi_value netfilter_send(napi_env env, napi_callback_info info);
napi_value netfilter_ask(napi_env env, napi_callback_info info);
napi_value if_name(napi_env env, napi_callback_info info);

#endif
