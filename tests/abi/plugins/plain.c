/* A good datapath in plain C: the ABI needs no C++. */
#include "plain.h"

EXPORT const egw_plugin_descriptor* egw_plugin_entry_v1(void) {
  static const egw_datapath_ops ops = PLAIN_OPS;
  static const egw_plugin_descriptor descriptor = {
      .struct_size = sizeof(descriptor),
      .abi_major = EGW_ABI_MAJOR,
      .abi_minor = EGW_ABI_MINOR,
      .kind = EGW_KIND_DATAPATH,
      .name = STR(NAME),
      .version = STR("1.2.3"),
      .build_tag = STR("C11"),
      .config_schema = STR(""),
      .capabilities = EGW_CAP_DELTA,
      .ops = &ops,
  };
  return &descriptor;
}
