import { readFileSync } from 'node:fs'
import { parse } from 'smol-toml'
import type { TestSettings } from '../stack.ts'

const INSTALL = readFileSync(new URL('../../../docs/INSTALL.md', import.meta.url), 'utf8')

/**
 * A section of INSTALL for one way to ask the gate: settings of the gate, and lines for the mail
 * server.
 */
export type Recipe = { readonly wrap: TestSettings[string]; readonly server: string }

/**
 * The recipe of a section of INSTALL whose lines for the mail server contain `marker`. `language`
 * is the language of their code block. Each entry of `places` is a text of the document and its
 * replacement in the test: a port or a directory.
 */
export function installRecipe(
  { section, language, marker }: { readonly section: string; readonly language: string; readonly marker: string },
  places: Readonly<Record<string, string>>,
): Recipe {
  const pairs = [
    ...sectionText(section).matchAll(
      new RegExp(`^\`\`\`toml\\n((?:(?!^\`\`\`).*\\n)*)\`\`\`\\n+\`\`\`${language}\\n([^]*?)^\`\`\`$`, 'gm'),
    ),
  ]
  const found = pairs.filter(([, , server = '']) => server.includes(marker))
  const [[, settings = '', server = ''] = []] = found
  if (found.length !== 1) throw new Error(`INSTALL, ${section}: ${found.length} recipes with ${marker}`)
  const { wrap, ...others } = parse(placed(section, settings, places))
  if (typeof wrap !== 'object' || Array.isArray(wrap) || wrap instanceof Date || Object.keys(others).length > 0)
    throw new Error(`INSTALL, ${section}: settings of the gate expected, not ${settings}`)
  return { wrap, server: placed(section, server, places) }
}

/**
 * The only code block of a section of INSTALL that contains `marker`, with `places` as in
 * installRecipe.
 */
export function installBlock(
  { section, language, marker }: { readonly section: string; readonly language: string; readonly marker: string },
  places: Readonly<Record<string, string>>,
): string {
  const blocks = [...sectionText(section).matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))]
  const [block, ...others] = blocks.map(([, text = '']) => text).filter(text => text.includes(marker))
  if (block === undefined || others.length > 0) throw new Error(`INSTALL, ${section}: not one block with ${marker}`)
  return placed(section, block, places)
}

/** The only text of a section of INSTALL that the pattern's group matches. */
export function installText(section: string, pattern: RegExp): string {
  const found = [...sectionText(section).matchAll(new RegExp(pattern, `${pattern.flags}g`))].map(([, text]) => text)
  const [text, ...others] = found
  if (text === undefined || others.length > 0) throw new Error(`INSTALL, ${section}: not one text like ${pattern}`)
  return text
}

const sectionText = (section: string): string =>
  INSTALL.split(/^## /m).find(each => each.startsWith(`${section}\n`)) ?? ''

const placed = (section: string, lines: string, places: Readonly<Record<string, string>>): string =>
  Object.entries(places).reduce((result, [place, instead]) => {
    if (!result.includes(place)) throw new Error(`INSTALL, ${section}: no ${place} in ${result}`)
    return result.replaceAll(place, instead)
  }, lines)
