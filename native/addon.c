/* The addon's exports, and nothing else. Signatures are in src/dataplane/io/native.ts. */
#include "util.h"

static const struct {
  const char *name;
  napi_callback function;
} exports_table[] = {
    {"close", close_handle},
    {"nfqueueOpen", nfqueue_open},
    {"nfqueueLend", nfqueue_lend},
    {"nfqueueCopy", nfqueue_copy},
    {"nfqueueProbe", nfqueue_probe},
    {"nfqueueUnbind", nfqueue_unbind},
    {"wakerOpen", waker_open},
    {"wakerFd", waker_fd},
    {"wakerWake", waker_wake},
    {"wakerWait", waker_wait},
    {"injectOpen", inject_open},
    {"injectSend", inject_send},
    {"rtnetlinkOpen", rtnetlink_open},
    {"rtnetlinkRequest", rtnetlink_request},
    {"rtnetlinkDump", rtnetlink_dump},
    {"rtnetlinkRouteGet", rtnetlink_route_get},
    {"monitorOpen", monitor_open},
    {"monitorDrain", monitor_drain},
    {"monitorWatch", monitor_watch},
    {"tunOpen", tun_open},
    {"tunFd", tun_fd},
    {"tunAttach", tun_attach},
    {"tunLend", tun_lend},
    {"tunSend", tun_send},
    {"tunInject", tun_inject},
    {"tunStates", tun_states},
    {"tunLeave", tun_leave},
    {"netfilterOpen", netfilter_open},
    {"netfilterSend", netfilter_send},
    {"netfilterAsk", netfilter_ask},
    {"ifName", if_name},
    {"checksumFinish", checksum_finish_bytes},
    {"adviseHuge", advise_huge},
};

NAPI_MODULE_INIT() {
  for (size_t i = 0; i < sizeof exports_table / sizeof exports_table[0]; i++) {
    napi_value function;
    if (napi_create_function(env, exports_table[i].name, NAPI_AUTO_LENGTH, exports_table[i].function, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, exports_table[i].name, function) != napi_ok)
      return NULL;
  }
  return exports;
}
