// A deliberately wrong datapath: a right one with one fault on top,
// to prove that the conformance kit sees it. Every fault is a Fault of faults.cpp; which.cpp
// chooses the one that a library has. Used by no cluster: the faults call shell
// commands.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "egw/abi/datapath.h"
#include "egw/abi/plugin.h"

namespace wrong {

// A change that a fault may alter; everything that it does not alter is borrowed from the host.
struct Edited {
  egw_change change{};
  egw_node_config node{};
  std::vector<egw_egress> egresses;
  std::vector<egw_class> classes;
  std::vector<std::vector<egw_class_rule>> rules;  // of classes[i]
  std::vector<egw_endpoint> endpoints;

  explicit Edited(const egw_change& original);
  Edited(const Edited&) = delete;
  Edited& operator=(const Edited&) = delete;
  // Makes `change` refer to the vectors.
  const egw_change* finish();
};

// What one open instance remembers.
struct Memory {
  unsigned applies = 0;
  std::map<std::string, egw_endpoint> endpoints;
};

struct Fault {
  std::string_view name;
  void (*edit)(Memory&, Edited&) = nullptr;               // before the right plugin sees a change
  bool (*instead)(Memory&, const egw_change&) = nullptr;  // true: apply answers ok and does nothing
  void (*at_open)() = nullptr;
  void (*at_purge)() = nullptr;        // after the right plugin's
  const char* before_apply = nullptr;  // shell
  const char* after_apply = nullptr;
  const char* after_probe = nullptr;
  const char* after_open = nullptr;
  const char* after_purge = nullptr;
  const char* before_close = nullptr;
  bool purge_before_apply = false, purge_at_first_apply = false, purge_at_close = false;
  bool one_fails_all = false;     // a bad object is the failure of the whole change
  bool unnamed_failures = false;  // no object is reported
  bool takes_any_base = false;    // a step on another state is answered with ok
  bool tells_no_drift = false;
  std::string_view hides_drift_of{};  // not told: drift whose words begin so
  bool always_healthy = false;
  bool forgets_nothing = false;
  bool purges_nothing = false;
  bool observes_text = false;  // observe gives no JSON object
  bool counts_backwards = false;
  bool counts_no_repair = false;
};

const Fault* find_fault(std::string_view name);

}  // namespace wrong
