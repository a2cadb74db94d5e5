// An entry that lets an exception out, as a C++ author may who does not use the SDK.
#include <stdexcept>

#include "egw/abi/plugin.h"

extern "C" __attribute__((visibility("default"))) const egw_plugin_descriptor*
egw_plugin_entry_v1() {
  throw std::runtime_error("no licence found");
}
