// What the tests share: a Chromium, the page that it is shown, and the gates of the graph.

import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const PATIENCE_MS = 10_000;

export const api = process.env.TREADLE_URL;

export function openGate(name) {
  writeFileSync(join(process.env.GATES, name), "");
}

async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [new URL("page.jsx", import.meta.url).pathname],
    bundle: true, write: false, jsx: "automatic", format: "esm", target: "es2022",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  return outputFiles[0].contents;
}

/** The page, at an origin of its own, as an application's front end is. */
async function serve() {
  const script = await bundle();
  const html = '<!doctype html><link rel="icon" href="data:,"><div id="root"></div>'
    + '<script type="module" src="/page.js"></script>';
  const server = createServer((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? script : html);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** A browser and the page's address for each transport; close it when done. */
export async function start() {
  const server = await serve();
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: QUIET });
  return {
    browser,
    address(transport) {
      const query = new URLSearchParams({ api, transport });
      return `http://127.0.0.1:${server.address().port}/?${query}`;
    },
    async close() {
      await browser.close();
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A tab with the chat, as a user sees it. `complaints` are what the page says on its console,
    `sockets` the WebSockets that it opened. */
export class Chat {
  constructor(page) {
    this.page = page;
    this.complaints = [];
    this.sockets = [];
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("websocket", (socket) => this.sockets.push(socket.url()));
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") this.complaints.push(message.text());
    });
  }

  static async open(context, address) {
    const chat = new Chat(await context.newPage());
    await chat.page.goto(address);
    await chat.ready();
    return chat;
  }

  async ready() {
    await this.page.locator("main[data-ready=true]").waitFor();
  }

  async reload() {
    await this.page.reload();
    await this.ready();
  }

  async say(text) {
    await this.page.locator("input").fill(text);
    await this.page.getByRole("button", { name: "Send" }).click();
  }

  async messages() {
    return this.page.locator("li").allTextContents();
  }

  /** Wait until the messages are exactly these. */
  async shows(...messages) {
    try {
      await this.page.waitForFunction(
        (wanted) => JSON.stringify([...document.querySelectorAll("li")].map((li) => li.textContent))
          === wanted,
        JSON.stringify(messages),
      );
    } catch (error) {
      throw new Error(`not shown: ${messages.join(" | ")}; but ${await this.messages()}`, {
        cause: error,
      });
    }
  }

  async loading(is) {
    await this.page.locator(`main[data-loading=${is}]`).waitFor();
  }

  /** Wait until the page asks for leave. */
  async asks() {
    await this.page.locator("dialog p", { hasText: "Shall I?" }).waitFor();
  }

  async isAsking() {
    return (await this.page.locator("dialog").count()) > 0;
  }

  /** Each different rendering of a message so far, since the page was loaded. */
  async renderings(at) {
    const all = await this.page.evaluate(() => window.renderings);
    const found = all.map((shown) => shown[at]).filter((text) => text !== undefined);
    return found.filter((text, n) => text !== found[n - 1]);
  }
}
