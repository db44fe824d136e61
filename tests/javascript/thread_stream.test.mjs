// The thread stream of the public SDK, over both transports.

import assert from "node:assert/strict";
import { test } from "node:test";
import { HI, TRANSPORTS, client, open, until, url } from "./helpers.mjs";

for (const transport of TRANSPORTS) {
  test(`${transport}: text comes as it is streamed`, async () => {
    const thread = open("slow_chat", transport);
    const { messages } = thread;
    const parts = [];
    await thread.run.start({ input: HI });
    for await (const message of messages) {
      for await (const part of message.text) parts.push(part);
      break;
    }
    assert.deepEqual(parts, ["one", " two", " three"]);
    assert.equal((await thread.output).messages.length, 2);
    await thread.close();
  });

  test(`${transport}: tool calls have their arguments and their output`, async () => {
    const thread = open("tool_agent", transport);
    const deltas = [];
    const events = await thread.subscribe(["messages"]);
    await thread.run.start({ input: HI });
    for await (const call of thread.toolCalls) {
      assert.equal(call.name, "search");
      assert.deepEqual(call.input ?? call.args, { query: "weather" });
      break;
    }
    for await (const event of events) {
      const data = event.params?.data ?? event;
      if (data.delta?.type === "tool-call-delta") deltas.push(data.delta.args);
      if (deltas.length === 2) break;
    }
    assert.equal(deltas.join(""), '{"query": "weather"}');
    const output = await thread.output;
    assert.equal(output.messages.find((m) => m.type === "tool").content, "result for weather");
    await thread.close();
  });

  test(`${transport}: an interrupt is asked and answered`, async () => {
    const thread = open("ask", transport);
    thread.startLifecycleWatcher?.();
    await thread.run.start({ input: {} });
    const asked = await until(() => thread.interrupts[0], "an interrupt");
    assert.deepEqual(asked.payload, { question: "name" });
    await thread.input.respond({
      namespace: asked.namespace, interrupt_id: asked.interruptId, response: "Ada",
    });
    const values = await until(async () => {
      const { status, values } = await client.threads.get(thread.threadId);
      return status === "idle" && values;
    }, "the answered run's end");
    assert.deepEqual(values.items, ["before", "name=Ada", "after"]);
    await thread.close();
  });

  test(`${transport}: subgraphs are found with their messages`, async () => {
    const thread = open("nested", transport);
    await thread.run.start({ input: HI });
    for await (const handle of thread.subgraphs) {
      assert.equal(handle.namespace[0].split(":")[0], "outer");
      break;
    }
    assert.equal((await thread.output).messages.length, 2);
    await thread.close();
  });

  test(`${transport}: the agents of a run are a tree`, async () => {
    const thread = open("nested", transport);
    await thread.run.start({ input: HI });
    await thread.output;
    const { tree } = await thread.agent.getTree();
    assert.equal(tree.status, "completed");
    assert.equal(tree.children[0].children[0].graph_name, "deep");
    await thread.close();
  });

  test(`${transport}: states are read and forked`, async () => {
    const thread = open("steps", transport);
    await thread.run.start({ input: {} });
    await thread.output;
    const state = await thread.state.get({ namespace: [], keys: ["items"] });
    assert.deepEqual(state.values, { items: ["a", "b", "c"] });
    const { checkpoints } = await thread.state.listCheckpoints({ limit: 10 });
    assert.equal(checkpoints[0].id, state.checkpoint.id);
    const before = checkpoints.find((checkpoint) => checkpoint.next[0] === "c");
    const fork = await thread.state.fork({ checkpoint_id: before.id });
    assert.equal(fork.thread_id, thread.threadId);
    await client.runs.join(thread.threadId, fork.run_id);
    assert.deepEqual((await client.threads.getState(thread.threadId)).values.items, ["a", "b", "c"]);
    await thread.close();
  });
}

test("a stream that breaks goes on where it was", async () => {
  let cuts = 0;
  const cutting = async (input, init) => {
    const answer = await fetch(input, init);
    if (!String(input.url ?? input).endsWith("/stream/events") || cuts > 2) return answer;
    cuts += 1;
    const reader = answer.body.getReader();
    let left = 900;
    const body = new ReadableStream({
      async pull(controller) {
        const { value, done } = await reader.read();
        if (done) return controller.close();
        controller.enqueue(value.slice(0, left));
        left -= value.length;
        if (left <= 0) {
          await reader.cancel();
          controller.error(new TypeError("network error"));
        }
      },
    });
    return new Response(body, { status: answer.status, headers: answer.headers });
  };
  const threadId = crypto.randomUUID();
  const thread = client.threads.stream(threadId, {
    assistantId: "steps", fetch: cutting, reconnectDelayMs: () => 5,
  });
  const events = await thread.subscribe(["values", "lifecycle", "updates"]);
  await thread.run.start({ input: {} });
  const seen = [];
  for await (const event of events) {
    seen.push([event.seq, event.event_id]);
    if (event.method === "lifecycle" && event.params.data.event === "completed") break;
  }
  assert.ok(cuts > 0);
  const whole = [];
  const again = await fetch(`${url}/threads/${threadId}/stream/events`, {
    method: "POST", body: JSON.stringify({ channels: ["values", "lifecycle", "updates"] }),
  });
  const reader = again.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes('"completed"')) text += (await reader.read()).value;
  for (const [, json] of text.matchAll(/^data: (.*)$/gm)) {
    const event = JSON.parse(json);
    whole.push([event.seq, event.event_id]);
  }
  await reader.cancel();
  assert.deepEqual(seen, whole);
  await thread.close();
});
