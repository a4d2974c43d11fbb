/* What the kernel is told of memory that JavaScript holds. */
#include "util.h"

#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

/*
 * (bytes) → how many of them lie before the first whole huge page. Asks for huge pages, where the kernel gives them to those that
 * ask (transparent_hugepage/enabled). What is read here and there otherwise costs a walk of the page tables for most reads.
 */
napi_value advise_huge(napi_env env, napi_callback_info info) {
  napi_value args[1];
  size_t length;
  uint8_t *bytes;
  if (!get_args(env, info, 1, args) || !(bytes = get_bytes(env, args[0], &length))) return NULL;
  const uintptr_t from = ((uintptr_t)bytes + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
  const uintptr_t to = ((uintptr_t)bytes + length) & ~(uintptr_t)(HUGE_PAGE - 1);
  /* Small pages do as well. */
  if (from < to) (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
  return make_int(env, from - (uintptr_t)bytes < length ? (int)(from - (uintptr_t)bytes) : (int)length);
}
