// `egw apply`: makes the stored objects agree with manifests.
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "egw/app/console.hpp"
#include "egw/app/manifest.hpp"
#include "egw/app/verbs.hpp"
#include "egw/core/admission.hpp"
#include "egw/model/codec.hpp"

namespace egw::app {
namespace {

using host::WriteRequest;
using model::Kind;
using nlohmann::json;

enum class Effect { kUnchanged, kConfigured, kCreated };

std::string_view to_string(Effect effect) {
  switch (effect) {
    case Effect::kCreated:
      return "created";
    case Effect::kConfigured:
      return "configured";
    case Effect::kUnchanged:
      break;
  }
  return "unchanged";
}

// Core kinds have no controller here that writes their status: the manifest does.
bool sets_status(const Manifest& m) {
  return model::is_core(m.kind) && m.document.contains("status");
}

class Applier {
 public:
  Applier(Session& session, const model::Settings& settings, bool dry_run)
      : session_(session), settings_(settings), dry_run_(dry_run) {}

  // What was said of the last manifest.
  [[nodiscard]] std::vector<std::string> take_warnings() { return std::exchange(warnings_, {}); }

  // Tries again when another writer was faster.
  Result<Effect> apply(const Manifest& m, bool status_only) {
    warnings_.clear();
    replaced_status_ = false;
    // The stores write these themselves, and would leave what is wrong with them out.
    if (auto faults = model::metadata_faults(m.document); !faults.empty()) {
      Error error = with_all_faults(m, std::move(faults.front()));
      if (error.code == Errc::kDenied) return tl::unexpected(std::move(error));
    }
    // The stores would leave it out without a word.
    if (!model::info(m.kind).namespaced && m.document.at("metadata").contains("namespace")) {
      Error error{Errc::kInvalid, "", "metadata.namespace: the kind is cluster-wide; leave it out"};
      error = with_all_faults(m, std::move(error));
      if (error.code == Errc::kDenied) return tl::unexpected(std::move(error));
    }
    constexpr int kAttempts = 8;
    for (int attempt = 1;; ++attempt) {
      auto done = status_only ? apply_status(m) : apply_object(m);
      if (done || attempt == kAttempts ||
          (done.error().code != Errc::kConflict && done.error().code != Errc::kExists)) {
        if (done || status_only || done.error().code != Errc::kInvalid) return done;
        return tl::unexpected(with_all_faults(m, std::move(done.error())));
      }
    }
  }

 private:
  // What the store itself does not take, a bad name for instance, it has not asked admission about,
  // which names every fault.
  Error with_all_faults(const Manifest& m, Error error) {
    core::ObjectReader reader;
    reader.get = [this](Kind kind, const model::Key& key) {
      auto object = session_.get(kind, key);
      return object ? std::make_shared<const json>(std::move(object->document)) : nullptr;
    };
    reader.each = [this](Kind kind, const core::ObjectReader::Visit& visit) {
      const auto objects = session_.list(host::Query{kind, "", "", "", ""});
      if (!objects) return;
      for (const auto& object : *objects) visit(object.document);
    };
    const auto stored = session_.get(m.kind, m.key);
    const json old = stored ? stored->document : json();
    json wanted = stored ? merge_applied(m.kind, old, m.document) : m.document;
    if (sets_status(m)) wanted["status"] = m.document["status"];
    json unused;
    const auto answer = core::admit(stored ? core::AdmitOp::kUpdate : core::AdmitOp::kCreate,
                                    m.kind, old, wanted, reader, settings_, unused);
    if (answer.admitted) return error;
    return {Errc::kDenied, std::move(error.object),
            fmt::format("{}", fmt::join(answer.denials, "\n")), 0};
  }

  // Stores judge no status, and what agents cannot read must not get there. A stored one that they
  // cannot read would keep every change of the object out, so it is replaced first.
  std::optional<Error> wrong_status(const Manifest& m, Result<host::StoredObject>& stored) {
    if (auto faults = core::status_faults(m.kind, m.document); !faults.empty()) {
      return with_all_faults(m, {Errc::kDenied, "", fmt::format("{}", fmt::join(faults, "\n")), 0});
    }
    if (!stored || dry_run_ || core::status_faults(m.kind, stored->document).empty()) {
      return std::nullopt;
    }
    auto written = write(WriteRequest::Op::kUpdateStatus, m, m.document, stored->revision, false);
    if (!written) return std::move(written.error());
    stored = std::move(written->object);
    replaced_status_ = true;
    return std::nullopt;
  }

  Result<Effect> apply_object(const Manifest& m) {
    auto stored = session_.get(m.kind, m.key);
    if (!stored && stored.error().code != Errc::kNotFound) {
      return tl::unexpected(std::move(stored.error()));
    }
    if (sets_status(m)) {
      if (auto wrong = wrong_status(m, stored)) return tl::unexpected(*std::move(wrong));
    } else if (m.document.contains("status")) {
      warnings_.push_back(
          fmt::format("{}: status is written by the controller and the agents; it is "
                      "left out (--subresource status sets it)",
                      m.label()));
    }
    Effect effect = Effect::kCreated;
    json document;
    std::uint64_t revision = 0;
    if (!stored) {
      auto created = write(WriteRequest::Op::kCreate, m, merge_applied(m.kind, json(), m.document),
                           0, dry_run_);
      if (!created) return tl::unexpected(std::move(created.error()));
      document = std::move(created->object.document);
      revision = created->object.revision;
    } else {
      if (auto changed = changed_since(m, *stored)) return tl::unexpected(*std::move(changed));
      if (stored->document.at("metadata").contains("deletionTimestamp")) {
        warnings_.push_back(
            m.label() +
            ": has been deleted and goes when its finalizers do, whatever is applied "
            "meanwhile; apply it again then");
      }
      auto updated = update(m, *stored);
      if (!updated) return updated;
      effect = *updated;
      document = stored->document;
      revision = stored->revision;
    }
    if (!sets_status(m)) return effect;
    const bool same = document.value("status", json()) == m.document["status"];
    if (same && !replaced_status_) return effect;
    if (!same && !dry_run_) {
      auto written = write(WriteRequest::Op::kUpdateStatus, m, m.document, revision, false);
      if (!written) return tl::unexpected(std::move(written.error()));
    }
    return effect == Effect::kUnchanged ? Effect::kConfigured : effect;
  }

  // A version that the manifest gives is a condition: the object is still as it was read. A node,
  // pod or namespace may be the copy of a cluster's, with a version of that one's.
  static std::optional<Error> changed_since(const Manifest& m, const host::StoredObject& stored) {
    const json& given = m.document.at("metadata");
    const json& now = stored.document.at("metadata");
    const auto text = [](const json& from, const char* key) {
      const auto it = from.find(key);
      return it != from.end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    const std::string uid = text(given, "uid");
    const auto changed = [](const std::string& what) {
      return Error{Errc::kDenied, "",
                   what +
                       ": read it again (egw get -o yaml), make your change there and apply "
                       "that; or leave metadata.resourceVersion and metadata.uid out to replace "
                       "whatever is stored"};
    };
    if (!uid.empty() && uid != text(now, "uid")) {
      if (model::is_core(m.kind)) return std::nullopt;
      return changed(
          fmt::format("metadata.uid: \"{}\", but the stored object has \"{}\": it is "
                      "another one of the same name",
                      uid, text(now, "uid")));
    }
    const std::string version = text(given, "resourceVersion");
    if (version.empty() || version == std::to_string(stored.revision)) return std::nullopt;
    return changed(
        fmt::format("metadata.resourceVersion: \"{}\", but \"{}\" is stored: somebody "
                    "else has changed the object since it was read",
                    version, stored.revision));
  }

  // Brings `stored` up to date with what has been written.
  Result<Effect> update(const Manifest& m, host::StoredObject& stored) {
    const json merged = merge_applied(m.kind, stored.document, m.document);
    // What would be stored, with admission's defaults: only that tells whether anything changes.
    auto wanted = write(WriteRequest::Op::kUpdate, m, merged, stored.revision, true);
    if (!wanted) return tl::unexpected(std::move(wanted.error()));
    if (same_but_status(wanted->object.document, stored.document)) return Effect::kUnchanged;
    if (!dry_run_) {
      auto written = write(WriteRequest::Op::kUpdate, m, merged, stored.revision, false);
      if (!written) return tl::unexpected(std::move(written.error()));
      stored = std::move(written->object);
    }
    return Effect::kConfigured;
  }

  Result<Effect> apply_status(const Manifest& m) {
    if (!m.document.contains("status")) {
      return fail(Errc::kInvalid, m.source, m.label() + ": holds no status");
    }
    const auto faults = core::status_faults(m.kind, m.document);
    if (!faults.empty()) {
      return fail(Errc::kDenied, "", fmt::format("{}", fmt::join(faults, "\n")));
    }
    auto stored = session_.get(m.kind, m.key);
    if (!stored) return tl::unexpected(std::move(stored.error()));
    if (auto changed = changed_since(m, *stored)) return tl::unexpected(*std::move(changed));
    if (stored->document.value("status", json()) == m.document["status"]) return Effect::kUnchanged;
    auto written =
        write(WriteRequest::Op::kUpdateStatus, m, m.document, stored->revision, dry_run_);
    if (!written) return tl::unexpected(std::move(written.error()));
    return Effect::kConfigured;
  }

  // Warnings are said once: those of a check before a write come again with the write.
  Result<host::WriteOutcome> write(WriteRequest::Op op, const Manifest& m, const json& document,
                                   std::uint64_t revision, bool dry_run) {
    WriteRequest request{op, m.kind, m.key, document};
    request.expected_revision = revision;
    request.dry_run = dry_run;
    auto outcome = session_.write(std::move(request));
    if (outcome && (!dry_run || dry_run_)) {
      for (const auto& warning : outcome->warnings) {
        warnings_.push_back(fmt::format("{}: {}", m.label(), warning));
      }
    }
    return outcome;
  }

  Session& session_;
  const model::Settings& settings_;
  bool dry_run_;
  bool replaced_status_ = false;  // by the manifest's, before all else
  std::vector<std::string> warnings_;
};

// Each fault on a line of its own, as `egw check` has them.
void tell(Console& console, const std::string& where, const Error& error) {
  const bool denied = error.code == Errc::kDenied;
  std::istringstream lines(denied ? error.message : error.to_string());
  for (std::string line; std::getline(lines, line);) console.error(where + ": " + line);
}

struct Outcome {
  std::optional<Result<Effect>> effect;  // absent: not tried yet
  std::vector<std::string> warnings;
};

// Each is told in its place, as soon as those before it are decided. False: one was not applied.
bool apply_all(Console& console, const std::vector<Manifest>& manifests, Applier& applier,
               bool status_only, bool dry_run) {
  std::vector<Outcome> outcomes(manifests.size());
  std::size_t told = 0;
  bool all = true;
  const auto tell_next = [&] {
    const Manifest& m = manifests[told];
    const Outcome& done = outcomes[told++];
    for (const std::string& warning : done.warnings) console.warning(warning);
    if (!*done.effect) {
      all = false;
      return tell(console, m.source + ": " + m.label(), done.effect->error());
    }
    console.out(
        fmt::format("{} {}{}\n", m.label(), to_string(**done.effect), dry_run ? " (dry run)" : ""));
  };
  in_passes(manifests, [&](std::size_t i) {
    Outcome& done = outcomes[i];
    done.effect = applier.apply(manifests[i], status_only);
    done.warnings = applier.take_warnings();
    while (told < outcomes.size() && outcomes[told].effect && *outcomes[told].effect) tell_next();
    const auto& effect = *done.effect;
    if (!effect && effect.error().code == Errc::kDenied) return Attempt::kRefused;
    return effect && *effect != Effect::kUnchanged && !dry_run ? Attempt::kChanged
                                                               : Attempt::kUnchanged;
  });
  while (told < outcomes.size()) tell_next();
  return all;
}

int run_apply(Context& context) {
  const Args& args = context.args;
  if (!args.has("filename")) return usage_error(context, "apply", "-f FILE|DIR|- is missing");
  const std::string subresource = args.get("subresource");
  if (!subresource.empty() && subresource != "status") {
    return usage_error(context, "apply",
                       fmt::format("--subresource is \"{}\"; expected status", subresource));
  }
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const bool dry_run = args.has("dry-run");
  const auto session = open_store(context, *config, code,
                                  dry_run ? host::StoreUse::kLooks : host::StoreUse::kWrites);
  if (session == nullptr) return code;
  const ManifestSet set = read_in_order(args.options.at("filename"), args.get("namespace"));
  for (const Error& error : set.unreadable) {
    context.console.error(error.to_string());
    code = kRefused;
  }
  Applier applier(*session, config->runtime.settings, dry_run);
  if (!apply_all(context.console, set.manifests, applier, subresource == "status", dry_run)) {
    code = kRefused;
  }
  return finish(context, code);
}

}  // namespace

Verb apply_verb() {
  Verb v;
  v.name = "apply";
  v.usage = "-f FILE|DIR|- [--dry-run] [--subresource status] [-n NAMESPACE]";
  v.summary = "Make stored objects agree with manifests";
  v.details =
      "Reads YAML or JSON, several documents in a file, every *.yaml, *.yml and *.json of a "
      "folder.\n"
      "Each object is reported; after a failure it goes on and ends with exit code 1. Nodes and "
      "namespaces are\napplied first, then gateways, then the rest, whatever the order of the "
      "files; what is refused is tried\nagain after its like, for it may have needed a change of "
      "theirs (not with --dry-run, which stores none).\n"
      "The spec becomes what the manifest says. So do labels and annotations, but those that "
      "neither this nor an\nearlier apply gave stay; finalizers where they are given. "
      "metadata.resourceVersion is a condition where it is\ngiven: an object that has changed "
      "since is left as it is.\n\n"
      "examples:\n"
      "  egw apply -f egressgateway.yaml\n"
      "  egw apply -f manifests/ --dry-run\n"
      "  kubectl get nodes,pods -A -o yaml | egw apply -f -";
  v.options = {
      {"filename", 'f', "FILE", "file, folder or - for standard input; repeatable"},
      {"namespace", 'n', "NAMESPACE", "for objects that name none (default: default)"},
      {"dry-run", 0, "", "check and report; store nothing"},
      {"subresource", 0, "status", "write the status of the manifests instead of the rest"},
  };
  v.run = run_apply;
  return v;
}

}  // namespace egw::app
