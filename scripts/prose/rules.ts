import writeGood from 'write-good'
import type { Block } from './read-prose.ts'

/** A place that a rule refuses, and the advice for it. */
export interface Fault {
  readonly line: number
  readonly rule: string
  readonly found: string
  readonly advice: string
}

/** Words of a sentence, or of its parts between semicolons. */
const MAX_WORDS = 30
const MAX_PASSIVES = 3
/** Words of a title of a test. */
const MAX_TITLE_WORDS = 24

interface Pattern {
  readonly rule: string
  readonly pattern: RegExp
  readonly advice: string
}

/**
 * Words before a relative clause without a noun. Verbs that introduce an indirect clause (say who,
 * show what) are not among them.
 */
const NO_NOUN =
  '(?:^|[.:;–(] |, (?:and |but |so |or )?|\\b(?:for|from|of|to|by|with|than|that|because|while|under|at|only|then) )'

/** Programs and processes of this project and its neighbours. */
const PROGRAM =
  '(?:authd|clients?|daemons?|gates?|login process(?:es)?|monitors?|pop3d|popup|primary|servers?|smtpds?|sslwrap|standbys?|starters?|workers?|wrap)'

/** Verbs for persons. */
const OF_A_PERSON =
  '(?:believes?|die[sd]?|forgets?|forgot|hangs? up|hung up|knows?|knew|likes|sleeps?|swallows?|thinks?|trusts?|wants?)'

const PATTERNS: readonly Pattern[] = [
  {
    rule: 'no-noun',
    pattern: /\b(?:whoever|whomever|whosoever|whatever|whichever|whom)\b/i,
    advice: 'name the thing or the person',
  },
  {
    rule: 'no-noun',
    pattern: new RegExp(`${NO_NOUN}who (?!may\\b|can\\b|runs\\b)\\w+`, 'i'),
    advice: 'write "a client that …" or "an administrator who …"',
  },
  {
    rule: 'no-noun',
    pattern: new RegExp(
      `${NO_NOUN}what (?!to\\b|happen|is\\?|still\\b|for\\b|it means|authd makes)\\w+.*\\w [^?]*$`,
      'i',
    ),
    advice: 'name the thing that you write about',
  },
  { rule: 'no-noun', pattern: /, (?:which|who|what)\.$/i, advice: 'finish the sentence' },
  {
    rule: 'person',
    // A value of a setting may have such a name. It then stands in quotation marks.
    pattern: /(?<!")\b(?:nobody|no one|somebody|someone|everybody|anybody)\b/i,
    advice: 'name the process, the account or the person',
  },
  { rule: 'person', pattern: /\b(?:he|she|him|his|her|hers|himself|herself)\b/i, advice: 'write the noun' },
  { rule: 'person', pattern: /\b(?:ours|yours|theirs)\b/i, advice: 'write the noun' },
  {
    rule: 'person',
    pattern: /\bof (?:our|its|their|your|his|one's) own\b/i,
    advice: 'write "its own socket", "a separate process"',
  },
  { rule: 'person', pattern: /\b(?:rely|relies|depends?) on (?:it|them)\b/i, advice: 'write the noun' },
  {
    rule: 'person',
    pattern:
      /\b(?:they|the peers?|the clients?|readers?) wakes?\b|\bwakings?\b|\b(?:who|it|they|that) (?:still |only )?(?:talks?|speaks?|likes?)\b/i,
    advice: 'say what the process does: sends, reads, runs',
  },
  {
    rule: 'person',
    pattern:
      /\b(?:is|are|was|were|be|been|being) (?:told|heard|believed|asked (?:for|to)|spared|looked at|taken for|listened to)\b/i,
    advice: 'say what the process does: sends, reads, accepts',
  },
  {
    rule: 'person',
    pattern: /\b(?:hears?|overhears?|vouch\w*|tells?)\b/i,
    advice: 'say what the process does: sends, reports',
  },
  {
    rule: 'person',
    pattern:
      /\b(?:kernel|process|database|socket|store|system|runtime|network) (?:tells|wants|likes|knows|believes|asks|thinks|speaks|forbids itself)\b/i,
    advice: 'say what the program does',
  },
  {
    rule: 'person',
    pattern: new RegExp(`\\b${PROGRAM} (?:(?:also|never|no longer|only|still|then) )?${OF_A_PERSON}\\b`, 'i'),
    advice: 'say what the program does: accepts, keeps, reads, ends, waits',
  },
  {
    rule: 'person',
    pattern: /\basks? (?:the )?\w+(?: \w+)? for (?:it|them)\b/i,
    advice: 'write "sends a request to"',
  },
  {
    rule: 'person',
    pattern: /\bthose (?:that|who) (?:ask|believe|know|listen|speak|trust|wait|want)\b/i,
    advice: 'write the noun',
  },
  {
    rule: 'metaphor',
    pattern: /\b(?:is|are|was|were|be) (?:dead|asleep)\b/i,
    advice: 'write "has ended" or "does not answer"',
  },
  {
    rule: 'metaphor',
    pattern:
      /\b(?:for good|for nothing|by (?:itself|themselves|himself)|in (?:a|the) moment|a moment|so many|so long|so much|at work|at it|let(?:s|ting)? go|(?:g[ai]ves?|given|giving) up|patience|the world|strangers?|shortcut|none other|altogether|anew|mend(?:s|ed)?|cure|(?:is|are) at hand)\b/i,
    advice: 'say what happens, with numbers and units',
  },
  {
    rule: 'metaphor',
    pattern: /\b(?:his|its|their) turns?\b|\btakes? turns\b|\bhad? (?:his|its|their) turn\b/i,
    advice: 'write "runs in the next loop turn"',
  },
  {
    rule: 'metaphor',
    pattern: /\b(?:mail|messages?|octets|traffic|domains) flows?\b/i,
    advice: 'say which program accepts or sends it',
  },
  { rule: 'metaphor', pattern: /\b(?:says?|said) so\b/i, advice: 'say who writes which message' },
  {
    rule: 'metaphor',
    pattern: /\b(?:a|the|no|on|any|sure|quick|\w's) (?:sure |quick )?yes\b/i,
    advice: 'write "a positive answer"',
  },
  { rule: 'metaphor', pattern: /\bin \w+(?: \w+)?'s hands\b|\bkeeps? \w+ out\b/i, advice: 'say what happens' },
  {
    rule: 'metaphor',
    pattern:
      /\b(?:goes|go) into (?!TRANSACTION)\w+ing\b|\bfound right\b|\bknown again\b|\bworth (?:something|nothing)\b/i,
    advice: 'say what happens',
  },
  {
    rule: 'metaphor',
    pattern: /(?<!\bthere) is no (?!longer\b|more\b)(?:[a-z]+)(?=[,.;]|$)/i,
    advice: 'write "is not a …"',
  },
  {
    rule: 'ellipsis',
    pattern: /^Of (?:all|two|the) .*, |^That \w+s (?:what|who)\b|^(?:\S+ ){1,4}(?:do|does|did)\.?$/i,
    advice: 'write a whole sentence, subject first',
  },
  { rule: 'ellipsis', pattern: /, which (?:follows|is none)\b/i, advice: 'write a second sentence' },
]

/** Abbreviations whose dot ends no sentence. */
const ABBREVIATION = /(?:^|[\s(])(?:e\.g|i\.e|cf|vs|etc|No)\.$/

/** Splits a text into sentences. A full stop, `?` or `!` before a space ends a sentence. */
export function sentencesOf(text: string): string[] {
  const sentences: string[] = []
  let begun = ''
  for (const part of text.split(/(?<=[.!?]['")\]]*) /)) {
    begun += begun === '' ? part : ` ${part}`
    if (ABBREVIATION.test(begun)) continue
    sentences.push(begun)
    begun = ''
  }
  if (begun !== '') sentences.push(begun)
  return sentences
}

const wordsIn = (sentence: string): number => sentence.match(/[\p{L}\p{N}][\p{L}\p{N}'’./:_-]*/gu)?.length ?? 0

/** A word that the glossary replaces, and its replacement. */
export interface Replacement {
  readonly pattern: RegExp
  readonly word: string
  readonly instead: string
}

/**
 * Reads the table "Words that are not used" of the glossary. A row with a condition in parentheses
 * is for the reader alone, because the word has other meanings.
 */
export function readReplacements(glossary: string): Replacement[] {
  const [, table = ''] = glossary.split('## Words that are not used\n')
  return [...table.matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)].flatMap(([, left = '', instead = '']) =>
    left === 'not' || left === '---' || left.includes('(')
      ? []
      : left.split(', ').map(word => ({ word, instead, pattern: new RegExp(`(?<![\\w/-])${word}s?(?![\\w-])`, 'i') })),
  )
}

/** Rules for whole sentences. A title may leave out its subject and its verb. */
const SENTENCE_RULES: ReadonlySet<string> = new Set(['ellipsis'])

/** Faults of the title of a test: its length and the words that sentences may not have. */
function faultsOfTitle(line: number, text: string): Fault[] {
  const faults: Fault[] = []
  const count = wordsIn(text)
  if (count > MAX_TITLE_WORDS)
    faults.push({
      line,
      rule: 'length',
      found: text.slice(0, 60),
      advice: `${count} words, ${MAX_TITLE_WORDS} at most in a title`,
    })
  for (const { rule, pattern, advice } of PATTERNS) {
    const found = SENTENCE_RULES.has(rule) ? null : pattern.exec(text)
    if (found !== null) faults.push({ line, rule, found: found[0].trim(), advice })
  }
  return faults
}

/** All faults of a block. */
export function findFaults({ kind, line, text }: Block, replacements: readonly Replacement[]): Fault[] {
  const faults: Fault[] = []
  for (const { pattern, word, instead } of replacements)
    if (pattern.test(text)) faults.push({ line, rule: 'glossary', found: word, advice: `write "${instead}"` })
  if (kind === 'heading') return faults
  if (kind === 'title') return [...faults, ...faultsOfTitle(line, text)]

  for (const sentence of sentencesOf(text)) {
    const count = Math.max(...sentence.split('; ').map(wordsIn))
    if (count > MAX_WORDS)
      faults.push({
        line,
        rule: 'length',
        found: sentence.slice(0, 60),
        advice: `${count} words, ${MAX_WORDS} at most`,
      })
    for (const { rule, pattern, advice } of PATTERNS) {
      const found = pattern.exec(sentence)
      if (found !== null) faults.push({ line, rule, found: found[0].trim(), advice })
    }
    const findings = writeGood(sentence, ONLY_THESE)
    const passives = findings.filter(({ reason }) => reason.includes('passive voice'))
    if (passives.length >= MAX_PASSIVES)
      faults.push({ line, rule: 'passive', found: sentence.slice(0, 60), advice: `${passives.length} passive verbs` })
    for (const { reason } of findings)
      if (!reason.includes('passive voice') && !reason.includes('CODE'))
        faults.push({ line, rule: 'write-good', found: sentence.slice(0, 60), advice: reason })
  }
  return faults
}

/** Checks of write-good. Its other checks are about taste: adverbs, "there is", long words. */
const ONLY_THESE = {
  passive: true,
  illusion: true,
  cliches: true,
  so: false,
  thereIs: false,
  weasel: false,
  adverb: false,
  tooWordy: false,
  eprime: false,
}
