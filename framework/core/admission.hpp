// Admission: one function for `egw apply`, the Kubernetes webhook and `egw check`. Pure.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "egw/model/meta.hpp"
#include "egw/model/settings.hpp"

namespace egw::core {

enum class AdmitOp { kCreate, kUpdate, kDelete };

// Reads other stored objects; inside the write's transaction where the store has one.
struct ObjectReader {
  // nullptr: not there. It may be shared with other questions.
  std::function<std::shared_ptr<const nlohmann::json>(model::Kind, const model::Key&)> get;
  // Calls visit with every object of the kind; what it is given is gone after its call.
  using Visit = std::function<void(const nlohmann::json&)>;
  std::function<void(model::Kind, const Visit& visit)> each;
};

struct AdmitAnswer {
  bool admitted = true;
  std::vector<std::string> warnings;
  std::vector<std::string> denials;  // each: field path, value, what would be accepted
};

// old_object: null on create; new_object: null on delete. When admitted, `object` receives the
// document to store (nothing on delete): new_object with defaults filled in. On an update what
// cannot change, and a pool's default EIPs, are taken from the old object where the new one leaves
// them out. The status is neither taken nor judged: `object` has the old one's, or none. Finalizers
// are taken as given; ours is added when an EgressGateway is created. An update that leaves the
// spec (of slices: the endpoints) as it is (labels, finalizers) is not asked about it. A field that
// the kind does not know is a denial, but for one that is stored already and stays beside the same
// spec. Kinds that egw does not own (Node, Pod, Namespace) are checked for shape only and passed on
// unchanged. Never throws for what is in a document, be it the reader's.
AdmitAnswer admit(AdmitOp op, model::Kind kind, const nlohmann::json& old_object,
                  const nlohmann::json& new_object, const ObjectReader& reader,
                  const model::Settings& settings, nlohmann::json& object);

// What is wrong with a status that somebody writes by hand; empty: nothing. Statuses are not
// admit()'s business: the Kubernetes API server judges them by the kind's schema.
std::vector<std::string> status_faults(model::Kind kind, const nlohmann::json& document);

}  // namespace egw::core
