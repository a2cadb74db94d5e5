// See store.hpp.
#include "store.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "reads.hpp"

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using sdk::WriteOp;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr auto kDefaultDeadline = 5000ms;
constexpr auto kLongestDeadline = 60000ms;
constexpr auto kFresh = 10s;  // a server that was heard since is well

sdk::Status check_place(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name) {
  if (kind.kind.empty() || kind.version.empty() || kind.plural.empty()) {
    return sdk::fail(Code::kInvalid, "the kind of the object is not given");
  }
  const std::string what = text_of(kind, ns, name);
  // The rest of the rules for names is the server's.
  if (name.empty() || name.find_first_not_of('.') == std::string_view::npos) {
    return sdk::fail(Code::kInvalid, "metadata.name must be given", what);
  }
  if (kind.namespaced == ns.empty()) {
    return sdk::fail(Code::kInvalid,
                     kind.namespaced
                         ? "the kind is namespaced: metadata.namespace must be given"
                         : "the kind is cluster-scoped: metadata.namespace must not be given",
                     what);
  }
  return sdk::ok();
}

// What the server keeps to itself: it is left as it is stored, whatever a document says.
void remove_system_fields(json& metadata) {
  for (const char* key :
       {"uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp",
        "deletionGracePeriodSeconds", "managedFields", "selfLink"}) {
    metadata.erase(key);
  }
}

}  // namespace

// One write on its way.
struct KubeStore::Step {
  const sdk::Write& write;
  Resource resource;
  std::string what;
  json wanted;      // the document to store, without the server's own fields; null for a delete
  std::string uid;  // that the document names
  steady_clock::time_point until;
  std::set<std::string> told;  // warnings: admission is asked again after a conflict

  [[nodiscard]] milliseconds left() const {
    return std::max(1ms, std::chrono::floor<milliseconds>(until - steady_clock::now()));
  }
  [[nodiscard]] std::string object_path() const { return resource.object(write.ns, write.name); }
  [[nodiscard]] const char* verb() const {
    switch (write.op) {
      case WriteOp::kCreate:
        return "create";
      case WriteOp::kUpdate:
        return "update";
      case WriteOp::kUpdateStatus:
        return "update status";
      case WriteOp::kDelete:
        return "delete";
    }
    return "write";
  }
  // Checks who the document says it is, and makes it so.
  sdk::Status take(std::string_view text);
  sdk::Status identify(json& document) const;
  [[nodiscard]] sdk::Status conflict(const json& before) const;
};

sdk::Status KubeStore::Step::identify(json& document) const {
  if (!document["metadata"].is_object()) {
    if (!document["metadata"].is_null()) {
      return sdk::fail(Code::kInvalid, "metadata must be an object", what);
    }
    document["metadata"] = json::object();
  }
  json& metadata = document["metadata"];
  const auto set = [&](json& object, const char* key, const std::string& wanted_text) {
    const std::string given = kube::text_of(object, key);
    if (!given.empty() && given != wanted_text) {
      return sdk::fail(
          Code::kInvalid,
          std::string(key) + " is \"" + given + "\", but the write is for \"" + wanted_text + "\"",
          what);
    }
    object[key] = wanted_text;
    return sdk::ok();
  };
  if (auto s = set(document, "apiVersion", resource.api_version()); !s.ok()) return s;
  if (auto s = set(document, "kind", resource.kind); !s.ok()) return s;
  if (auto s = set(metadata, "name", std::string(write.name)); !s.ok()) return s;
  if (auto s = set(metadata, "namespace", std::string(write.ns)); !s.ok()) return s;
  if (write.ns.empty()) metadata.erase("namespace");
  remove_system_fields(metadata);
  return sdk::ok();
}

sdk::Status KubeStore::Step::take(std::string_view text) {
  sdk::Outcome<json> parsed = parse_object(text);
  if (!parsed.ok()) {
    return sdk::fail(Code::kInvalid, "the object is not valid JSON: " + parsed.status().message,
                     what);
  }
  wanted = std::move(*parsed);
  uid = kube::text_of(member_of(wanted, "metadata"), "uid");
  return identify(wanted);
}

sdk::Status KubeStore::Step::conflict(const json& before) const {
  const std::uint64_t revision = revision_of(before);
  if (write.expected_revision != 0 && write.expected_revision != revision) {
    return sdk::fail(Code::kConflict,
                     "revision " + std::to_string(write.expected_revision) +
                         " was expected, but revision " + std::to_string(revision) +
                         " is stored; read it again",
                     what);
  }
  const std::string stored_uid = kube::text_of(member_of(before, "metadata"), "uid");
  if (!uid.empty() && uid != stored_uid) {
    return sdk::fail(Code::kConflict,
                     "the object was deleted and made anew since it was read (uid " + stored_uid +
                         " is stored, " + uid + " was given); read it again",
                     what);
  }
  return sdk::ok();
}

KubeStore::KubeStore(std::string_view config_json, sdk::StoreHost host)
    : config_(parse_store_config(config_json, host.serves_admission())),
      host_(host),
      api_(find_access(config_.connection.access), host),
      terms_(api_, config_.connection.ns.empty() ? api_.access().ns : config_.connection.ns,
             config_.term_lease, host) {
  host_.info("API server " + api_.access().server.shown() + ", by " + api_.access().origin);
  if (config_.webhook.enabled) {
    webhook_ = std::make_unique<Webhook>(
        api_, config_.webhook,
        config_.connection.ns.empty() ? api_.access().ns : config_.connection.ns, host_);
  }
}

// ---- subscriptions -----------------------------------------------------------------------------

sdk::Outcome<std::uint64_t> KubeStore::subscribe(const sdk::Query& query, sdk::EventSink sink) {
  if (query.kind.kind.empty() || query.kind.plural.empty()) {
    return sdk::fail(Code::kInvalid, "the kind to subscribe to is not given");
  }
  bury();
  const std::lock_guard lock(mutex_);
  const std::uint64_t number = ++last_number_;
  reflectors_.emplace(number, std::make_unique<Reflector>(api_, query, sink, host_));
  return number;
}

void KubeStore::unsubscribe(std::uint64_t subscription) {
  std::unique_ptr<Reflector> reflector;
  {
    const std::lock_guard lock(mutex_);
    const auto it = reflectors_.find(subscription);
    if (it == reflectors_.end()) return;
    reflector = std::move(it->second);
    reflectors_.erase(it);
  }
  reflector->end();
  // Within an event its thread cannot be waited for.
  const std::lock_guard lock(mutex_);
  ended_.push_back(std::move(reflector));
}

void KubeStore::bury() {
  const std::lock_guard lock(mutex_);
  ended_.remove_if([](const std::unique_ptr<Reflector>& r) { return r->finished(); });
}

// ---- reads -------------------------------------------------------------------------------------

sdk::Status KubeStore::get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                           const sdk::ObjectSink& out) {
  if (sdk::Status s = check_place(kind, ns, name); !s.ok()) return s;
  return get_into(api_, kind, ns, name, config_.connection.request_timeout, out);
}

sdk::Status KubeStore::list(const sdk::Query& query, const sdk::ObjectSink& out) {
  return list_into(api_, query, config_.connection.request_timeout, out);
}

sdk::Status KubeStore::health() {
  // Whoever answers the API server's questions goes on to be asked: that it cannot be reached
  // itself is told to the subscribers. Were the controllers not ready for that, it would find none
  // of them when it comes back.
  if (webhook_ != nullptr && webhook_->health().ok()) return sdk::ok();
  const bool heard = api_.heard_within(kFresh);
  const sdk::Status alive = heard ? sdk::ok() : api_.alive(config_.connection.request_timeout);
  return alive.ok() && webhook_ != nullptr ? webhook_->health() : alive;
}

// ---- writes ------------------------------------------------------------------------------------

sdk::Status KubeStore::write(const sdk::Write& write, const sdk::ObjectSink& out) {
  if (sdk::Status s = check_place(write.kind, write.ns, write.name); !s.ok()) return s;
  const auto patience = write.deadline == 0ms
                            ? milliseconds(kDefaultDeadline)
                            : std::min<milliseconds>(write.deadline, kLongestDeadline);
  Step step{write,
            Resource(write.kind),
            text_of(write.kind, write.ns, write.name),
            json(),
            "",
            steady_clock::now() + patience,
            {}};
  if (write.op != WriteOp::kDelete) {
    if (sdk::Status s = step.take(write.object); !s.ok()) return s;
  }
  if (write.term != 0) {
    if (sdk::Status s = terms_.check(write.term, !write.dry_run, step.what, step.left()); !s.ok()) {
      return s;
    }
  }
  for (;;) {
    sdk::Status status = attempt(step, out);
    // Whoever expects no revision does not want to hear that another was faster.
    const bool again = status.code == Code::kConflict && write.expected_revision == 0 &&
                       step.uid.empty() && write.op != WriteOp::kCreate && step.left() > 50ms;
    if (!again) return status;
  }
}

sdk::Status KubeStore::attempt(Step& step, const sdk::ObjectSink& out) {
  switch (step.write.op) {
    case WriteOp::kCreate:
      return create(step, out);
    case WriteOp::kUpdate:
      return update(step, out);
    case WriteOp::kUpdateStatus:
      return update_status(step, out);
    case WriteOp::kDelete:
      return remove(step, out);
  }
  return sdk::fail(Code::kInvalid,
                   "unknown operation " + std::to_string(static_cast<unsigned>(step.write.op)),
                   step.what);
}

sdk::Outcome<json> KubeStore::stored(const Step& step) {
  HttpRequest request;
  request.path = step.object_path();
  request.deadline = step.left();
  return api_.object(request, {"get", step.resource.text(), step.what});
}

sdk::Outcome<json> KubeStore::send(const Step& step, const char* method, std::string path,
                                   const json& body, const char* content_type) {
  HttpRequest request;
  request.method = method;
  request.path = std::move(path);
  request.path += Parameters().add("dryRun", step.write.dry_run ? "All" : "").text();
  request.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  request.content_type = content_type;
  request.deadline = step.left();
  return api_.object(std::move(request), {step.verb(), step.resource.text(), step.what});
}

// On success step.wanted is what is to be stored, with the defaults filled in.
sdk::Status KubeStore::admit(Step& step, const json& before, const sdk::ObjectSink& out) {
  ApiReader reader(api_, step.until);
  const sdk::Admission verdict =
      host_.admit(step.write.op, step.write.kind, before.is_null() ? "" : before.dump(),
                  step.wanted.is_null() ? "" : step.wanted.dump(), reader);
  // A judgement without what was to be read is none, whichever way it went.
  if (!reader.trouble().ok()) {
    return sdk::fail(Code::kUnavailable, cannot_judge(reader.trouble()), step.what);
  }
  for (const std::string& warning : verdict.warnings) {
    if (step.told.insert(warning).second) out.warning(warning);
  }
  if (!verdict.admitted) {
    std::string reasons;
    for (const std::string& denial : verdict.denials) {
      reasons += (reasons.empty() ? "" : "\n") + denial;
    }
    return sdk::fail(Code::kDenied, reasons, step.what);
  }
  if (step.wanted.is_null() || verdict.object.empty()) return sdk::ok();
  sdk::Outcome<json> admitted = parse_object(verdict.object);
  if (!admitted.ok()) return admitted.status();
  step.wanted = std::move(*admitted);
  return step.identify(step.wanted);
}

sdk::Status KubeStore::create(Step& step, const sdk::ObjectSink& out) {
  if (step.write.expected_revision != 0) {
    return sdk::fail(Code::kConflict,
                     "revision " + std::to_string(step.write.expected_revision) +
                         " was expected, but the object is to be created",
                     step.what);
  }
  if (sdk::Status s = admit(step, json(), out); !s.ok()) return s;
  const auto made = send(step, "POST", step.resource.collection(step.write.ns), step.wanted);
  if (made.ok()) deliver(step.resource, made.value(), out);
  return made.status();
}

sdk::Status KubeStore::update(Step& step, const sdk::ObjectSink& out) {
  const sdk::Outcome<json> before = stored(step);
  if (!before.ok()) return before.status();
  if (sdk::Status s = step.conflict(before.value()); !s.ok()) return s;
  if (sdk::Status s = admit(step, before.value(), out); !s.ok()) return s;
  json body = step.wanted;
  body["metadata"]["resourceVersion"] =
      kube::text_of(member_of(before.value(), "metadata"), "resourceVersion");
  const auto now = send(step, "PUT", step.object_path(), body);
  if (now.ok()) deliver(step.resource, now.value(), out);
  return now.status();
}

sdk::Status KubeStore::update_status(Step& step, const sdk::ObjectSink& out) {
  const std::string path = step.object_path() + "/status";
  const auto status = step.wanted.find("status");
  const bool has_status = status != step.wanted.end() && !status->is_null();
  sdk::Outcome<json> now = sdk::fail(Code::kInternal, "");
  if (step.write.expected_revision == 0 && has_status) {
    json patch = json::array();
    patch.push_back({{"op", "add"}, {"path", "/status"}, {"value", *status}});
    now = send(step, "PATCH", path, patch, "application/json-patch+json");
  } else {
    json body = {{"apiVersion", step.wanted["apiVersion"]},
                 {"kind", step.wanted["kind"]},
                 {"metadata", {{"name", step.wanted["metadata"]["name"]}}}};
    if (!step.write.ns.empty()) body["metadata"]["namespace"] = std::string(step.write.ns);
    if (has_status) body["status"] = *status;
    std::string revision = std::to_string(step.write.expected_revision);
    if (step.write.expected_revision == 0) {
      const sdk::Outcome<json> before = stored(step);
      if (!before.ok()) return before.status();
      revision = kube::text_of(member_of(before.value(), "metadata"), "resourceVersion");
    }
    body["metadata"]["resourceVersion"] = revision;
    now = send(step, "PUT", path, body);
  }
  if (now.ok()) deliver(step.resource, now.value(), out);
  return now.status();
}

sdk::Status KubeStore::remove(Step& step, const sdk::ObjectSink& out) {
  const sdk::Outcome<json> before = stored(step);
  if (!before.ok()) return before.status();
  if (sdk::Status s = step.conflict(before.value()); !s.ok()) return s;
  if (sdk::Status s = admit(step, before.value(), out); !s.ok()) return s;
  const json& metadata = member_of(before.value(), "metadata");
  json options = {{"apiVersion", "v1"}, {"kind", "DeleteOptions"}};
  options["preconditions"]["uid"] = kube::text_of(metadata, "uid");
  if (step.write.expected_revision != 0) {
    options["preconditions"]["resourceVersion"] = kube::text_of(metadata, "resourceVersion");
  }
  // With a body the server does not look at the query.
  if (step.write.dry_run) options["dryRun"] = json::array({"All"});
  const auto answer = send(step, "DELETE", step.object_path(), options);
  if (!answer.ok()) return answer.status();
  // The object where it waits for its finalizers; else a metav1.Status or the last document.
  const bool is_object = kube::text_of(answer.value(), "kind") == step.resource.kind;
  deliver(step.resource, is_object ? answer.value() : before.value(), out);
  return sdk::ok();
}

}  // namespace egw::kube
