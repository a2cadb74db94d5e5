// `egw apply`: makes the stored objects agree with manifests.
#include <fmt/format.h>

#include <memory>
#include <sstream>

#include "egw/app/console.hpp"
#include "egw/app/manifest.hpp"
#include "egw/app/verbs.hpp"
#include "egw/core/admission.hpp"

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

// Node, Pod and Namespace have no controller here that writes their status: the manifest does.
bool is_core(Kind kind) {
  return kind == Kind::kNode || kind == Kind::kPod || kind == Kind::kNamespace;
}

class Applier {
 public:
  Applier(Session& session, const model::Settings& settings, Console& console, bool dry_run)
      : session_(session), settings_(settings), console_(console), dry_run_(dry_run) {}

  // Tries again when another writer was faster.
  Result<Effect> apply(const Manifest& m, bool status_only) {
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
    const json wanted = stored ? merge_applied(m.kind, old, m.document) : m.document;
    json unused;
    const auto answer = core::admit(stored ? core::AdmitOp::kUpdate : core::AdmitOp::kCreate,
                                    m.kind, old, wanted, reader, settings_, unused);
    if (answer.admitted) return error;
    return {Errc::kDenied, std::move(error.object),
            fmt::format("{}", fmt::join(answer.denials, "\n")), 0};
  }

  Result<Effect> apply_object(const Manifest& m) {
    auto stored = session_.get(m.kind, m.key);
    if (!stored && stored.error().code != Errc::kNotFound) {
      return tl::unexpected(std::move(stored.error()));
    }
    const bool has_status = m.document.contains("status");
    if (has_status && !is_core(m.kind)) {
      console_.warning(
          fmt::format("{}: status is written by the controller and the agents; it is "
                      "left out (--subresource status sets it)",
                      m.label()));
    }
    Effect effect = Effect::kCreated;
    json document;
    std::uint64_t revision = 0;
    if (!stored) {
      auto created = write(WriteRequest::Op::kCreate, m, m.document, 0, dry_run_);
      if (!created) return tl::unexpected(std::move(created.error()));
      document = std::move(created->object.document);
      revision = created->object.revision;
    } else {
      auto updated = update(m, *stored);
      if (!updated) return updated;
      effect = *updated;
      document = stored->document;
      revision = stored->revision;
    }
    if (!has_status || !is_core(m.kind)) return effect;
    if (document.value("status", json()) == m.document["status"]) return effect;
    if (!dry_run_) {
      auto written = write(WriteRequest::Op::kUpdateStatus, m, m.document, revision, false);
      if (!written) return tl::unexpected(std::move(written.error()));
    }
    return effect == Effect::kUnchanged ? Effect::kConfigured : effect;
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
    auto stored = session_.get(m.kind, m.key);
    if (!stored) return tl::unexpected(std::move(stored.error()));
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
        console_.warning(fmt::format("{}: {}", m.label(), warning));
      }
    }
    return outcome;
  }

  Session& session_;
  const model::Settings& settings_;
  Console& console_;
  bool dry_run_;
};

// Each fault on a line of its own, as `egw check` has them.
void tell(Console& console, const std::string& where, const Error& error) {
  const bool denied = error.code == Errc::kDenied;
  std::istringstream lines(denied ? error.message : error.to_string());
  for (std::string line; std::getline(lines, line);) console.error(where + ": " + line);
}

int run(Context& context) {
  const Args& args = context.args;
  if (!args.has("filename")) return usage_error(context, "apply", "-f FILE|DIR|- is missing");
  const std::string subresource = args.get("subresource");
  if (!subresource.empty() && subresource != "status") {
    return usage_error(context, "apply",
                       fmt::format("--subresource is \"{}\"; expected status", subresource));
  }
  int code = kDone;
    const auto faults = core::status_faults(m.kind, m.document);
    if (!faults.empty()) {
      return fail(Errc::kDenied, "", fmt::format("{}", fmt::join(faults, "\n")));
    }
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const auto session = open_store(context, *config, code);
  if (session == nullptr) return code;
  const bool dry_run = args.has("dry-run");
  Applier applier(*session, config->runtime.settings, context.console, dry_run);
  const ManifestSet set = read_in_order(args.options.at("filename"), args.get("namespace"));
  for (const Error& error : set.unreadable) {
    context.console.error(error.to_string());
    code = kRefused;
  }
  for (const Manifest& manifest : set.manifests) {
    const auto effect = applier.apply(manifest, subresource == "status");
    if (!effect) {
      tell(context.console, manifest.source + ": " + manifest.label(), effect.error());
      code = kRefused;
      continue;
    }
    context.console.out(fmt::format("{} {}{}\n", manifest.label(), to_string(*effect),
                                    dry_run ? " (dry run)" : ""));
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
      "files.\n"
      "Spec, labels and annotations become what the manifest says; finalizers and status stay.\n\n"
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
  v.run = run;
  return v;
}

}  // namespace egw::app
