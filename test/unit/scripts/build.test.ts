import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { build, type Plugin } from 'esbuild'
import { expect, test } from 'vitest'
import { BUILT_IN_MODULES, buildAll } from '../../../scripts/build.ts'

const FETCH = 'NativeModule internal/deps/undici/undici'

/** Builds and runs a program. Returns its lines and the built-in modules that it has loaded. */
async function run(program: string, plugins: Plugin[]) {
  const { outputFiles } = await build({
    stdin: { contents: `${program}\nconsole.log(JSON.stringify(process.moduleLoadList))`, loader: 'ts' },
    bundle: true,
    format: 'esm',
    platform: 'node',
    write: false,
    plugins,
  })
  const child = spawnSync(process.execPath, ['--input-type=module'], { input: outputFiles[0]?.text, encoding: 'utf8' })
  const lines = child.stdout.trim().split('\n')
  const loaded: unknown = JSON.parse(lines.pop() ?? '')
  return { lines, loaded, transcript: child.stderr }
}

const SERVER = `
  import net, { isIP } from 'node:net'
  import * as http from 'node:http'
  import { readFile } from 'node:fs/promises'
  console.log(isIP('::1'), typeof http.createServer, net.isIP === isIP, typeof readFile)
`

test('a built program loads no module that only an unused export needs', async () => {
  const plain = await run(SERVER, [])
  expect(plain.loaded).toContain(FETCH)
  const built = await run(SERVER, [BUILT_IN_MODULES])
  expect(built.loaded).not.toContain(FETCH)
  expect(built.lines).toEqual(plain.lines)
  expect(built.lines).toEqual(['6 function true function'])
})

test('a module that Node.js lacks stops the build', async () => {
  await expect(run("import { x } from 'node:nothing'\nconsole.log(x)", [BUILT_IN_MODULES])).rejects.toThrow(
    'Node.js has no module node:nothing',
  )
})

test('no program of dist/ imports a built-in module, except the one that gives `require`', async () => {
  const scripts = [...(await buildAll())].filter(path => path.endsWith('.js'))
  expect(scripts.length).toBeGreaterThan(8)
  for (const path of scripts) {
    const imported = readFileSync(path, 'utf8').match(/(?<=\bfrom\s?)["']node:[\w/]+["']/g)
    expect([path, imported]).toEqual([path, ["'node:module'"]])
  }
})

test('no program has a character beyond ASCII, with which the runtime reads the whole file more slowly', async () => {
  const programs = [...(await buildAll())].filter(path => /\.c?js$/.test(path))
  expect(programs.length).toBeGreaterThan(8)
  const wide = programs.filter(path => readFileSync(path).some(octet => octet > 0x7f))
  expect(wide).toEqual([])
})
