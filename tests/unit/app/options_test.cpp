// The command line: global options before and after the verb, two-word verbs, exact refusals, help.
#include "egw/app/options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "egw/app/verbs.hpp"

namespace egw::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Result<CommandLine> parse(const std::vector<std::string>& argv, const std::string& env_config = "",
                          const std::string& env_dir = "") {
  return parse_command_line(argv, all_verbs(), env_config, env_dir);
}

std::string usage_error(const std::vector<std::string>& argv) {
  const auto line = parse(argv);
  return line ? "(accepted)" : line.error().to_string();
}

TEST(Options, GlobalOptionsBeforeAndAfterTheVerb) {
  const auto line = parse({"--config", "a.yaml", "--set", "x=1", "get", "egw", "g1", "--set=y=2",
                           "--log-level", "debug", "--plugin-dir=/p"});
  ASSERT_TRUE(line) << line.error().to_string();
  EXPECT_EQ(line->verb->name, "get");
  EXPECT_EQ(line->input.file, "a.yaml");
  EXPECT_THAT(line->input.sets, ElementsAre("x=1", "y=2"));
  EXPECT_EQ(line->input.log_level, "debug");
  EXPECT_EQ(line->input.plugin_dir, "/p");
  EXPECT_THAT(line->args.positional, ElementsAre("egw", "g1"));
}

TEST(Options, EnvironmentCountsWhereNoOptionIsGiven) {
  EXPECT_EQ(parse({"get", "egw"}, "env.yaml")->input.file, "env.yaml");
  EXPECT_EQ(parse({"--config=opt.yaml", "get", "egw"}, "env.yaml")->input.file, "opt.yaml");
  EXPECT_EQ(parse({"get", "egw"}, "", "/env")->input.env_plugin_dir, "/env");
}

TEST(Options, AValueThatIsAVerbsNameIsAValue) {
  const auto line = parse({"--config", "get", "apply", "-f", "-"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->verb->name, "apply");
  EXPECT_EQ(line->input.file, "get");
  EXPECT_EQ(line->args.get("filename"), "-");
}

TEST(Options, AVerbsOwnOptionsMayStandBeforeIt) {
  const auto agent = parse({"--node-name", "n1", "--drain", "agent"});
  ASSERT_TRUE(agent) << agent.error().to_string();
  EXPECT_EQ(agent->input.node_name, "n1");
  const auto get = parse({"-n", "get", "get", "egp"});
  ASSERT_TRUE(get) << get.error().to_string();
  EXPECT_EQ(get->args.get("namespace"), "get");
  EXPECT_EQ(usage_error({"--drain", "get", "egp"}),
            "egw get: unrecognised option '--drain'; see: egw get --help");
}

TEST(Options, ShortOptionsAsKubectlTakesThem) {
  const auto line = parse({"get", "egp", "-nshop", "-o=yaml", "-w", "-l", "app=a,b!=c"});
  ASSERT_TRUE(line) << line.error().to_string();
  EXPECT_EQ(line->args.get("namespace"), "shop");
  EXPECT_EQ(line->args.get("output"), "yaml");
  EXPECT_EQ(line->args.get("selector"), "app=a,b!=c");
  EXPECT_TRUE(line->args.has("watch"));
  EXPECT_FALSE(line->args.has("all-namespaces"));
}

TEST(Options, RepeatedFiles) {
  const auto line = parse({"apply", "-f", "a", "-f", "b", "--dry-run"});
  ASSERT_TRUE(line);
  EXPECT_THAT(line->args.options.at("filename"), ElementsAre("a", "b"));
}

TEST(Options, VerbsOfTwoWords) {
  EXPECT_EQ(parse({"plugin", "list"})->verb->name, "plugin list");
  EXPECT_EQ(parse({"plugin", "inspect", "netlink"})->args.positional[0], "netlink");
  EXPECT_EQ(usage_error({"plugin"}),
            "egw plugin: expected one of list, inspect, check after it; see: egw plugin --help");
}

TEST(Options, NodeNameAndStateDirReachTheConfiguration) {
  const auto line = parse({"agent", "--node-name", "n1", "--state-dir", "/s", "--drain"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->input.node_name, "n1");
  EXPECT_EQ(line->input.state_dir, "/s");
  EXPECT_TRUE(line->args.has("drain"));
}

// A variable of a script that is not set must not mean "all of them", or another store.
TEST(Options, EmptyValuesAreNotLeftOut) {
  for (const char* option :
       {"--config", "--plugin-dir", "--set", "--namespace", "-n", "-o", "--log-level"}) {
    EXPECT_THAT(usage_error({"get", "egp", option, ""}), HasSubstr("empty")) << option;
  }
  EXPECT_THAT(usage_error({"purge", "--datapath", ""}), HasSubstr("--datapath: is empty"));
  EXPECT_TRUE(parse({"get", "pods", "-l", ""}));
}

TEST(Options, Refusals) {
  EXPECT_EQ(usage_error({}), "egw: a command is missing; see: egw --help");
  EXPECT_EQ(usage_error({"aply", "-f", "x"}),
            "egw: unknown command \"aply\"; did you mean \"apply\"?");
  EXPECT_EQ(usage_error({"frobnicate"}), "egw: unknown command \"frobnicate\"; see: egw --help");
  EXPECT_EQ(usage_error({"get"}),
            "egw get: expected: egw get KIND[,KIND]... [NAME]... | KIND/NAME; see: egw get --help");
  EXPECT_EQ(usage_error({"get", "egw", "--wath"}),
            "egw get: unrecognised option '--wath'; see: egw get --help");
  EXPECT_EQ(usage_error({"get", "egw", "--wat"}),
            "egw get: unrecognised option '--wat'; see: egw get --help")
      << "options are not guessed";
  EXPECT_EQ(usage_error({"get", "egw", "-o"}),
            "egw get: the required argument for option '--output' is missing; see: egw get --help");
  EXPECT_EQ(usage_error({"drain", "n1", "n2"}),
            "egw drain: unexpected argument \"n2\"; see: egw drain --help");
  EXPECT_EQ(usage_error({"--colour"}), "egw: unrecognised option '--colour'; see: egw --help");
}

TEST(Options, HelpAndVersionNeedNothingElse) {
  EXPECT_TRUE(parse({"--help"})->help);
  EXPECT_TRUE(parse({"-h"})->help);
  EXPECT_TRUE(parse({"get", "--help"})->help) << "although its argument is missing";
  EXPECT_TRUE(parse({"--version"})->version);
}

TEST(Options, HelpAsACommandAndOfAGroup) {
  EXPECT_TRUE(parse({"help"})->help);
  const auto get = parse({"help", "get"});
  ASSERT_TRUE(get) << get.error().to_string();
  EXPECT_TRUE(get->help);
  EXPECT_EQ(get->verb->name, "get");
  EXPECT_EQ(parse({"get", "egw", "help"})->verb->name, "get") << "an object may be called so";
  EXPECT_FALSE(parse({"get", "egw", "help"})->help);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"plugin", "--help"}, {"help", "plugin"}, {"plugin", "x", "-h"}}) {
    const auto group = parse(words);
    ASSERT_TRUE(group) << group.error().to_string();
    EXPECT_TRUE(group->help);
    EXPECT_EQ(group->group, "plugin");
  }
  const std::string text = help_text(all_verbs(), "plugin");
  EXPECT_THAT(text, HasSubstr("plugin inspect"));
  EXPECT_THAT(text, Not(HasSubstr("apply")));
}

TEST(Options, EveryVerbHasHelpThatNamesItsOptions) {
  const std::string all = help_text(all_verbs());
  for (const auto& verb : all_verbs()) {
    EXPECT_THAT(all, HasSubstr("  " + verb.name + " "));
    const std::string own = help_text(verb);
    EXPECT_THAT(own, HasSubstr("usage: egw " + verb.name));
    for (const auto& option : verb.options) EXPECT_THAT(own, HasSubstr("--" + option.name));
    EXPECT_FALSE(verb.summary.empty());
    EXPECT_NE(verb.run, nullptr);
  }
}

}  // namespace
}  // namespace egw::app
