// `egw delete`: deletes objects by name or by manifest.
#include <fmt/format.h>

#include "egw/app/console.hpp"
#include "egw/app/manifest.hpp"
#include "egw/app/table.hpp"
#include "egw/app/verbs.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

struct Target {
  model::Kind kind;
  model::Key key;
};

// "KIND NAME..." or "KIND/NAME..." from the arguments.
Result<std::vector<Target>> targets_of(const Args& args) {
  std::vector<Target> out;
  const std::string ns = args.get("namespace", "default");
  const auto add = [&](model::Kind kind, const std::string& name) {
    out.push_back({kind, {model::info(kind).namespaced ? ns : "", name}});
  };
  const auto& words = args.positional;
  if (words[0].find('/') != std::string::npos) {
    for (const auto& word : words) {
      const std::size_t slash = word.find('/');
      if (slash == std::string::npos)
        return fail(Errc::kInvalid, "", "expected KIND/NAME: " + word);
      auto kinds = parse_kinds(word.substr(0, slash));
      if (!kinds) return tl::unexpected(std::move(kinds.error()));
      if (kinds->size() != 1) return fail(Errc::kInvalid, "", "expected one kind: " + word);
      add(kinds->front(), word.substr(slash + 1));
    }
    return out;
  }
  auto kinds = parse_kinds(words[0]);
  if (!kinds) return tl::unexpected(std::move(kinds.error()));
  if (kinds->size() != 1) return fail(Errc::kInvalid, "", "expected one kind: " + words[0]);
  if (words.size() < 2) return fail(Errc::kInvalid, "", "expected the names of what to delete");
  for (std::size_t i = 1; i < words.size(); ++i) add(kinds->front(), words[i]);
  return out;
}

std::string held_by(const json& document) {
  const json metadata = document.value("metadata", json::object());
  std::string out;
  if (!metadata.contains("deletionTimestamp")) return out;
  for (const auto& finalizer : metadata.value("finalizers", json::array())) {
    out += (out.empty() ? "" : ", ") + finalizer.get<std::string>();
  }
  return out;
}

// Deletes one object and says so; the exit code.
int remove(Session& session, Context& context, const Target& target) {
  host::WriteRequest request{host::WriteRequest::Op::kDelete, target.kind, target.key, nullptr};
  auto outcome = session.write(std::move(request));
  const std::string what = fmt::format("{} \"{}\"", resource_name(target.kind), target.key.name);
  if (!outcome) {
    if (outcome.error().code == Errc::kNotFound) {
      if (context.args.has("ignore-not-found")) return kDone;
      context.console.error(
          fmt::format("{} \"{}\" not found", model::info(target.kind).plural, target.key.name));
    } else {
      context.console.error(fmt::format("{}: {}", what, outcome.error().to_string()));
    }
    return kRefused;
  }
  for (const auto& warning : outcome->warnings) context.console.warning(warning);
  const std::string finalizers = held_by(outcome->object.document);
  context.console.out(
      finalizers.empty()
          ? fmt::format("{} deleted\n", what)
          : fmt::format("{} marked for deletion: held by finalizer {}\n", what, finalizers));
  return kDone;
}

int run_delete(Context& context) {
  const Args& args = context.args;
  const bool from_files = args.has("filename");
  if (from_files == !args.positional.empty()) {
    return usage_error(context, "delete", "expected KIND NAME... or -f FILE|DIR|-");
  }
  std::vector<Target> targets;
  if (!from_files) {
    auto named = targets_of(args);
    if (!named) return usage_error(context, "delete", named.error().to_string());
    targets = *std::move(named);
  }
  int code = kDone;
  const auto session = open_store(context, code);
  if (session == nullptr) return code;
  if (from_files) {
    for (auto& manifest : read_manifests(args.options.at("filename"), args.get("namespace"))) {
      if (manifest) {
        targets.push_back({manifest->kind, manifest->key});
        continue;
      }
      context.console.error(manifest.error().to_string());
      code = kRefused;
    }
  }
  for (const auto& target : targets) code = std::max(code, remove(*session, context, target));
  return finish(context, code);
}

}  // namespace

Verb delete_verb() {
  Verb v;
  v.name = "delete";
  v.usage = "KIND NAME... | KIND/NAME... | -f FILE|DIR|-";
  v.summary = "Delete objects";
  v.details =
      "An object with finalizers is marked and goes when its last finalizer does: a gateway in "
      "use\n"
      "serves its policies until none is left.\n\n"
      "examples:\n"
      "  egw delete egp shop -n default\n"
      "  egw delete -f manifests/ --ignore-not-found";
  v.options = {
      {"filename", 'f', "FILE", "delete the objects of a file, a folder or - (standard input)"},
      {"namespace", 'n', "NAMESPACE", "namespace of the objects (default: default)"},
      {"ignore-not-found", 0, "", "what is not there counts as deleted"},
  };
  v.max_args = 10000;
  v.run = run_delete;
  return v;
}

}  // namespace egw::app
