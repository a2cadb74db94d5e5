/* One way to be broken per build: CASE_<number> by the definition BROKEN and the name by NAME (see
 * tests/abi/CMakeLists.txt). The datapath beneath is the good one of plain.h. */
#define _GNU_SOURCE
#include <unistd.h>

#include "plain.h"

#define NO_SYMBOL 1
#define WRONG_KIND 2
#define WRONG_NAME 3
#define NEWER_MAJOR 4
#define UNKNOWN_REQUIRED 5
#define MISSING_OP 6
#define SHORT_OPS 7
#define NULL_DESCRIPTOR 8
#define SMALL_DESCRIPTOR 9
#define LONG_VERSION 10
#define NULL_TEXT 11
#define BAD_SCHEMA 12
#define CRASH_IN_ENTRY 13
#define ABORT_IN_ENTRY 14
#define EXIT_IN_ENTRY 15
#define HANG_IN_ENTRY 16
#define CRASH_IN_CONSTRUCTOR 17
#define WILD_POINTER 18
#define UNDEFINED_SYMBOL 19
#define NULL_OPS 20
#define OLDER_MAJOR 21
/* Odd, and all right: */
#define NEWER_MINOR 50
#define PRINTS 51
#define NO_DELTA 52

__attribute__((unused)) static volatile uintptr_t nowhere =
    8; /* an address that the compiler cannot know to be bad */

#if BROKEN == NO_SYMBOL
#define ENTRY some_other_entry
#else
#define ENTRY egw_plugin_entry_v1
#endif

#if BROKEN == CRASH_IN_CONSTRUCTOR
__attribute__((constructor)) static void on_load(void) { *(volatile int*)nowhere = 1; }
#elif BROKEN == PRINTS
__attribute__((constructor)) static void on_load(void) {
  if (write(STDOUT_FILENO, "a word from the library\n", 24) < 0) abort();
}
#elif BROKEN == UNDEFINED_SYMBOL
extern int egw_test_symbol_that_nobody_defines(void);
#endif

/* What a later version of the ABI may look like: longer structs. */
typedef struct later_ops {
  egw_datapath_ops known;
  int32_t (*brand_new)(void*);
} later_ops;
typedef struct later_descriptor {
  egw_plugin_descriptor known;
  uint64_t brand_new;
} later_descriptor;

EXPORT const egw_plugin_descriptor* ENTRY(void) {
  static later_ops ops = {.known = PLAIN_OPS};
  static char long_text[1 << 16];
  static later_descriptor d = {.known = {
                                   .struct_size = sizeof(egw_plugin_descriptor),
                                   .abi_major = EGW_ABI_MAJOR,
                                   .abi_minor = EGW_ABI_MINOR,
                                   .kind = EGW_KIND_DATAPATH,
                                   .name = STR(NAME),
                                   .version = STR("1"),
                                   .config_schema = STR("{\"type\": \"object\"}"),
                                   .capabilities = EGW_CAP_DELTA,
                                   .ops = &ops,
                               }};
  memset(long_text, 'x', sizeof(long_text));
  switch (BROKEN) {
    case WRONG_KIND:
      d.known.kind = EGW_KIND_STATE_STORE;
      break;
    case WRONG_NAME:
      d.known.name = (egw_str)STR("somebody-else");
      break;
    case NEWER_MAJOR:
      d.known.abi_major = EGW_ABI_MAJOR + 1;
      break;
    case OLDER_MAJOR:
      d.known.abi_major = EGW_ABI_MAJOR - 1;
      break;
    case UNKNOWN_REQUIRED:
      d.known.required = 1ull << 40;
      break;
    case MISSING_OP:
      ops.known.apply = NULL;
      ops.known.observe = NULL;
      break;
    case SHORT_OPS:
      ops.known.struct_size = offsetof(egw_datapath_ops, purge);
      break;
    case NULL_OPS:
      d.known.ops = NULL;
      break;
    case NULL_DESCRIPTOR:
      return NULL;
    case SMALL_DESCRIPTOR:
      d.known.struct_size = 24;
      break;
    case LONG_VERSION:
      d.known.version = (egw_str){long_text, sizeof(long_text)};
      break;
    case NULL_TEXT:
      d.known.version = (egw_str){NULL, 5};
      break;
    case BAD_SCHEMA:
      d.known.config_schema = (egw_str)STR("{\"type\": ");
      break;
    case CRASH_IN_ENTRY:
      *(volatile int*)nowhere = 1;
      break;
    case ABORT_IN_ENTRY:
      abort();
    case EXIT_IN_ENTRY:
      exit(7);
    case HANG_IN_ENTRY:
      for (;;) pause();
    case WILD_POINTER:
      d.known.name.data = (const char*)8;
      break;
#if BROKEN == UNDEFINED_SYMBOL
    case UNDEFINED_SYMBOL:
      d.known.kind = (uint32_t)egw_test_symbol_that_nobody_defines();
      break;
#endif
    case NEWER_MINOR:
      d.known.abi_minor = EGW_ABI_MINOR + 7;
      d.known.struct_size = sizeof(d);
      d.known.capabilities |= 1ull << 50;
      ops.known.struct_size = sizeof(ops);
      break;
    case PRINTS:
      if (write(STDOUT_FILENO, "and another\n", 12) < 0) abort();
      break;
    case NO_DELTA:
      d.known.capabilities = 0;
      break;
    default:
      break;
  }
  return &d.known;
}
