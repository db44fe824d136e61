// A page with useStream, in a real browser, holds a conversation: over both transports.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { Client } from "@langchain/langgraph-sdk";
import { Chat, api, openGate, start } from "./browser.mjs";

const client = new Client({ apiUrl: api });

let site;
before(async () => { site = await start(); });
after(() => site.close());

for (const transport of ["sse", "websocket"]) {
  describe(transport, () => {
    let context, gates, tabs;
    const open = async (address = site.address(transport)) => {
      tabs.push(await Chat.open(context, address));
      return tabs.at(-1);
    };

    beforeEach(async () => {
      context = await site.browser.newContext();
      gates = ["a", "b"].map((name) => `${name}-${crypto.randomUUID()}`);
      tabs = [];
    });
    afterEach(async () => {
      gates.forEach(openGate);
      await context.close();
      for (const tab of tabs) {
        assert.deepEqual(tab.complaints, []);
        assert.equal(tab.sockets.length > 0, transport === "websocket");
      }
    });

    test("tokens appear as they come, over several turns", async () => {
      const script = `one two @${gates[0]} three @${gates[1]} four`;
      const chat = await open();
      await chat.say(script);
      await chat.shows(script, "one two");
      await chat.loading(true);
      openGate(gates[0]);
      await chat.shows(script, "one two three");
      await chat.loading(true);
      openGate(gates[1]);
      await chat.shows(script, "one two three four");
      await chat.loading(false);
      const grown = await chat.renderings(1);
      for (const [n, text] of grown.slice(1).entries()) {
        assert.ok(text.startsWith(grown[n]), grown.join(" | "));
      }
      const answer = chat.page.locator("li").nth(1);
      assert.ok(await answer.getAttribute("data-parent"), "it knows the checkpoint before it");
      await chat.say("and five");
      await chat.shows(script, "one two three four", "and five", "and five");
      await chat.loading(false);
    });

    test("an interrupt outlives a reload, is answered in the page, and stays away", async () => {
      const chat = await open();
      await chat.say("may I ask");
      await chat.asks();
      await chat.reload();
      await chat.asks();
      await chat.shows("may I ask", "may I ask");
      await chat.page.getByRole("button", { name: "Yes" }).click();
      const whole = ["may I ask", "may I ask", "you said yes"];
      await chat.shows(...whole);
      await chat.loading(false);
      assert.equal(await chat.isAsking(), false);
      await chat.reload();
      await chat.shows(...whole);
      await chat.say("go on"); // this run's events come after all that is replayed
      await chat.shows(...whole, "go on", "go on");
      await chat.loading(false);
      assert.equal(await chat.isAsking(), false);
    });

    test("a reload in mid-run loses nothing and doubles nothing", async () => {
      const script = `one two @${gates[0]} three @${gates[1]} four`;
      const chat = await open();
      await chat.say(script);
      await chat.shows(script, "one two");
      await chat.reload();
      await chat.loading(true);
      await chat.shows(script, "one two");
      openGate(gates[0]);
      await chat.shows(script, "one two three");
      openGate(gates[1]);
      await chat.shows(script, "one two three four");
      await chat.loading(false);
      const threadId = new URL(chat.page.url()).searchParams.get("thread");
      const { values } = await client.threads.getState(threadId);
      assert.equal(values.messages.length, 2);
      assert.equal((await client.runs.list(threadId)).length, 1);
    });

    test("a second tab that comes in mid-run knows at once, and shows the same", async () => {
      const script = `one two @${gates[0]} three`;
      const first = await open();
      await first.say(script);
      await first.shows(script, "one two");
      const second = await open(first.page.url());
      await second.loading(true);
      await second.shows(script, "one two");
      openGate(gates[0]);
      for (const tab of [first, second]) {
        await tab.shows(script, "one two three");
        await tab.loading(false);
      }
      await second.say("from here"); // and what is said in one, the other shows
      for (const tab of [second, first]) {
        await tab.shows(script, "one two three", "from here", "from here");
        await tab.loading(false);
      }
    });
  });
}
